"""Reader of the batches of CIFAR-10: from their archive, without unpacking it, or from the unpacked folder.

The batches are pickles, which can run any program. Only what an array needs is taken from them.
"""

import codecs
import hashlib
import io
import pickle
import tarfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqmem.errors import UserError

LARGEST = 2**27
"""Most bytes of a batch; the official ones have 31 million. A small archive can declare, and compress, any size."""

_reconstruct: Any = np.zeros(0).__reduce__()[0]
_allowed: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): codecs.encode,
}


class ImageBatch(NamedTuple):
    """One file: ``images`` (n, 3072) uint8, all red values row by row, then green and blue, ``labels`` (n,), checksums."""

    images: np.ndarray
    labels: np.ndarray
    md5: str
    sha256: str


def read_batches(source: Path, names: list[str]) -> dict[str, ImageBatch]:
    """Read files of a tar file, compressed or not, or of a folder.

    Args:
        source: the archive, with the files in ``cifar-10-batches-py/``, or the folder of the files.
        names: of the files.

    Raises:
        UserError: a file is missing, is damaged, cannot be read or is not such a batch.
    """
    try:
        contents = _unpacked(source, names) if source.is_dir() else _archived(source, names)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        where = getattr(error, "filename", None) or source
        raise UserError(f"{where} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    missing = [name for name in names if name not in contents]
    if missing:
        raise UserError(f"{source} has no file {missing[0]}, expected {', '.join(names)}")
    return {name: _batch(source / name, contents[name]) for name in names}


class _ArraysOnly(pickle.Unpickler):
    """Reads dictionaries, lists, texts, numbers and arrays, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _allowed:
            raise pickle.UnpicklingError(f"it contains {module}.{name}")
        return _allowed[module, name]


def _unpacked(folder: Path, names: list[str]) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}


def _archived(archive: Path, names: list[str]) -> dict[str, bytes]:
    contents = {}
    with tarfile.open(archive) as members:
        for member in members:
            folder, _, name = member.name.rpartition("/")
            # Reading a link would read the file that it points to.
            if member.isreg() and folder == "cifar-10-batches-py" and name in names:
                if member.size > LARGEST:
                    raise UserError(f"{archive}: got {member.name} of {member.size} bytes, expected at most {LARGEST}")
                content = members.extractfile(member)
                assert content is not None
                contents[name] = content.read()
    return contents


def _batch(path: Path, content: bytes) -> ImageBatch:
    try:
        found = _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
        images, labels = np.asarray(found["data"]), np.asarray(found["labels"])
    except Exception as error:  # a damaged pickle can raise any error
        raise UserError(f"{path} is not a batch of CIFAR-10: {error}") from None
    if images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != 3 * 32 * 32 or not len(images):
        raise UserError(f"{path}: got images of shape {images.shape} and {images.dtype}, expected (n, 3072) and uint8")
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise UserError(f"{path}: got labels of shape {labels.shape} and {labels.dtype}, expected {len(images)} integers")
    if labels.min() < 0 or labels.max() > 9:
        raise UserError(f"{path}: got labels from {labels.min()} to {labels.max()}, expected 0 to 9")
    return ImageBatch(images, labels, hashlib.md5(content).hexdigest(), hashlib.sha256(content).hexdigest())
