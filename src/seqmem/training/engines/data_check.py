"""A check, before training, that a data set can be identified: the same arguments give the same numbers."""

import hashlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import torch

from seqmem import datasets
from seqmem.data import SPLITS, DataSet
from seqmem.data.provenance import sha256
from seqmem.errors import UserError

_ROWS = 100
_MOST_SECONDS = 0.5
_REMEDY = "give it Provenance(seed, {split: sha256(array), ...}) of seqmem.data"


def check_data(arguments: Mapping[str, Any], data: object) -> None:
    """Check that a loaded data set can be identified in a record.

    A data set that lacks a checksum is loaded a second time, which must give the same first batch of each split. One with all
    checksums but without files is loaded a second time if that is quick, and must give the same checksums. An object other than
    a ``DataSet`` of this name is not checked.

    Args:
        arguments: section ``dataset`` of the config.
        data: the data set that was loaded with them.

    Raises:
        UserError: it has neither a seed nor a checksum, or a second loading gives other numbers.
    """
    if not isinstance(data, DataSet) or arguments.get("name") != data.name:
        return
    description = data.describe()
    sums, files = description.get("sha256") or {}, description.get("files")
    unknown = [split for split in SPLITS if not sums.get(split)]
    if unknown:
        if len(unknown) == len(SPLITS) and description.get("seed") is None and not files:
            raise UserError(f"dataset.name: got {data.name}, which has neither a seed nor a checksum; {_REMEDY}")
        _check_repeatable(arguments, data, _numbers)
        print(f"warning: data set {data.name} has no checksum of {', '.join(unknown)}; {_REMEDY}", file=sys.stderr)
    elif not files and data.load_seconds is not None and data.load_seconds < _MOST_SECONDS:
        _check_repeatable(arguments, data, DataSet.describe)


def _check_repeatable(arguments: Mapping[str, Any], data: DataSet, numbers: Callable[[DataSet], Any]) -> None:
    """Compare what ``numbers`` returns for a data set with that of a second loading."""
    again = numbers(datasets.load(arguments))
    # If two further loadings agree, ``data`` was made with other arguments, which is for the caller to know.
    if again != numbers(data) and numbers(datasets.load(arguments)) != again:
        raise UserError(
            f"dataset.name: got {data.name}, whose second loading gives other numbers, expected the same; draw them with "
            "seqmem.data.generator(seed, ...), not with the global generators of torch, NumPy or Python"
        )


def _numbers(data: DataSet) -> str:
    """Return a checksum of the first rows of each split."""
    digest = hashlib.sha256()
    for split in SPLITS:
        batch = data.batch(split, torch.arange(min(_ROWS, data.sizes[split])))
        values = [getattr(batch, field.name) for field in fields(batch)]
        digest.update(sha256(*(value.numpy() for value in values if isinstance(value, torch.Tensor))).encode())
    return digest.hexdigest()
