"""Settings and arrays in one file without executable content: a zip of ``meta.json`` and ``NAME.npy``."""

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
    tokenize.TokenError,  # numpy parses old headers as Python source
    TypeError,
)
"""Exceptions of reading a zip of arrays that is damaged or hostile."""


def write(path: Path, meta: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> None:
    """Write settings and arrays atomically.

    Args:
        path: the file.
        meta: settings, as values that JSON can hold.
        arrays: tensors by name.

    Raises:
        UserError: the file cannot be written.
    """
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        zips.add_member(archive, "meta.json", (json.dumps(meta, indent=2) + "\n").encode())
        write_arrays(archive, {name: tensor.detach().cpu().numpy() for name, tensor in arrays.items()})


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the settings, and the tensors by name, that :func:`write` wrote.

    Raises:
        UserError: the file does not exist, is damaged, or is not such a file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            zips.check_size(archive)
            meta = json.loads(archive.read("meta.json"))
            arrays = {name: torch.from_numpy(array) for name, array in read_arrays(archive).items()}
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})") from None
    except DAMAGE as error:
        raise UserError(f"{path} is not a file of a model, or damaged ({error})") from None
    if not isinstance(meta, dict):
        raise UserError(f"{path} is not a file of a model (its meta.json has no settings)")
    return meta, arrays


def write_arrays(archive: zipfile.ZipFile, arrays: Mapping[str, np.ndarray]) -> None:
    """Add arrays to an open zip, as ``np.savez`` does, which cannot take the names ``file`` and ``allow_pickle``."""
    for name, array in arrays.items():
        content = io.BytesIO()
        np.lib.format.write_array(content, array, allow_pickle=False)
        zips.add_member(archive, f"{name}.npy", content.getvalue())


def read_arrays(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    """Return the arrays in an open zip by name; one that holds Python objects raises one of ``DAMAGE``."""
    return {
        name.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
        for name in archive.namelist()
        if name.endswith(".npy")
    }


def check_shapes(path: Path, arrays: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse arrays with unexpected names or shapes, before a model of their size is built.

    Args:
        path: the file, for the message.
        arrays: the arrays of the file by name.
        expected: the shapes by name.

    Raises:
        UserError: naming the first array that differs.
    """
    for name in [*expected, *arrays]:
        got = tuple(arrays[name].shape) if name in arrays else "none"
        shape = tuple(expected[name]) if name in expected else "none"
        if got != shape:
            raise UserError(f"{path} does not match its settings: got {name} {got}, expected {shape}")
