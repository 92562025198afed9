"""Settings and arrays in one file that holds nothing that could be executed: a zip of ``meta.json`` and ``NAME.npy``."""

import io
import json
import tokenize
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqmem.errors import UserError
from seqmem.io import zips
from seqmem.io.files import replacing

DAMAGE = (
    *zips.DAMAGE,
    tokenize.TokenError,  # numpy reads old headers as Python's
    TypeError,
)
"""What reading a zip of arrays ends in where it is damaged, or made by someone else."""


def write(path: Path, meta: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> None:
    """Write a file so that a kill at any moment leaves the old one or the new one.

    Args:
        path: the file.
        meta: values that JSON can hold.
        arrays: tensors by name.

    Raises:
        UserError: the file cannot be written.
    """
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        zips.add_member(archive, "meta.json", (json.dumps(meta, indent=2) + "\n").encode())
        write_arrays(archive, {name: tensor.detach().cpu().numpy() for name, tensor in arrays.items()})


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What :func:`write` wrote: the settings, and the tensors by name.

    Raises:
        UserError: there is no such file, or it is damaged or something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            zips.check_size(archive)
            meta = json.loads(archive.read("meta.json"))
            arrays = {name: torch.from_numpy(array) for name, array in read_arrays(archive).items()}
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})") from None
    except DAMAGE as error:
        raise UserError(f"{path} is no file of a model, or damaged ({error})") from None
    if not isinstance(meta, dict):
        raise UserError(f"{path} is no file of a model (its meta.json holds no settings)")
    return meta, arrays


def write_arrays(archive: zipfile.ZipFile, arrays: Mapping[str, np.ndarray]) -> None:
    """Add arrays to an open zip, as ``np.savez`` does, which has no way to take the names ``file`` and ``allow_pickle``."""
    for name, array in arrays.items():
        content = io.BytesIO()
        np.lib.format.write_array(content, array, allow_pickle=False)
        zips.add_member(archive, f"{name}.npy", content.getvalue())


def read_arrays(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    """The arrays in an open zip by name, none of which may hold Python objects; raises one of ``DAMAGE``."""
    return {
        name.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
        for name in archive.namelist()
        if name.endswith(".npy")
    }


def check_shapes(path: Path, arrays: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse arrays of other names or shapes than are ``wanted``, before anything of the size that a file claims is made.

    Raises:
        UserError: naming the first of them.
    """
    for name in [*wanted, *arrays]:
        found = tuple(arrays[name].shape) if name in arrays else "none"
        expected = tuple(wanted[name]) if name in wanted else "none"
        if found != expected:
            raise UserError(f"{path} holds another model than the settings say: got {name} {found}, expected {expected}")
