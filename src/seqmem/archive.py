"""Settings and arrays in one file that holds nothing that could be executed: a zip of ``meta.json`` and ``NAME.npy``."""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqmem.errors import UserError
from seqmem.files import replacing


def write(path: Path, meta: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> None:
    """Write a file so that a kill at any moment leaves the old one or the new one.

    Args:
        path: the file.
        meta: values that JSON can hold.
        arrays: tensors by name.

    Raises:
        UserError: the file cannot be written.
    """
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("meta.json", json.dumps(meta, indent=2) + "\n")
        for name, tensor in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, tensor.detach().cpu().numpy(), allow_pickle=False)
            archive.writestr(f"{name}.npy", content.getvalue())


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What :func:`write` wrote: the settings, and the tensors by name.

    Raises:
        UserError: there is no such file, or it is damaged or something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            meta = json.loads(archive.read("meta.json"))
            arrays = {
                name.removesuffix(".npy"): torch.from_numpy(np.lib.format.read_array(file, allow_pickle=False))
                for name in archive.namelist()
                if name.endswith(".npy")
                for file in [io.BytesIO(archive.read(name))]
            }
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})") from None
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, NotImplementedError) as error:
        raise UserError(f"{path} is no file of a model, or damaged ({error})") from None
    if not isinstance(meta, dict):
        raise UserError(f"{path} is no file of a model (its meta.json holds no settings)")
    return meta, arrays
