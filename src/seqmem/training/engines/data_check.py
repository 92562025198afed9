"""A check, before training, that a data set can be identified: the same arguments give the same numbers."""

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch

from seqmem import datasets
from seqmem.data import SPLITS, DataSet
from seqmem.data.provenance import sha256
from seqmem.errors import UserError

_ROWS = 100
_REMEDY = "give it Provenance(seed, {split: sha256(array), ...}) of seqmem.data"


def check_data(arguments: Mapping[str, Any], data: object) -> None:
    """Check that a loaded data set can be identified in a record.

    Files that were read are known by their checksums. Any other data set is loaded a second time, which must give the same
    description and the same first batch of each split. An object other than a ``DataSet`` of this
    name is not checked.

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
    if len(unknown) == len(SPLITS) and description.get("seed") is None and not files:
        raise UserError(f"dataset.name: got {data.name}, which has neither a seed nor a checksum; {_REMEDY}")
    if unknown or not files:
        _check_repeatable(arguments, data)
    if unknown:
        print(f"warning: data set {data.name} has no checksum of {', '.join(unknown)}; {_REMEDY}", file=sys.stderr)


def _check_repeatable(arguments: Mapping[str, Any], data: DataSet) -> None:
    numbers = _numbers(data)
    again = _numbers(datasets.load(arguments))
    # If two further loadings agree, ``data`` was made with other arguments, which is for the caller to know.
    if again != numbers and _numbers(datasets.load(arguments)) != again:
        raise UserError(
            f"dataset.name: got {data.name}, whose second loading gives other numbers, expected the same; draw them with "
            "seqmem.data.generator(seed, ...), not with the global generators of torch, NumPy or Python"
        )


def _numbers(data: DataSet) -> str:
    """Return a checksum of the description and of the first rows of each split."""
    digest = hashlib.sha256(repr(data.describe()).encode())
    for split in SPLITS:
        batch = data.batch(split, torch.arange(min(_ROWS, data.sizes[split])))
        values = [getattr(batch, field.name) for field in fields(batch)]
        digest.update(sha256(*(value.numpy() for value in values if value is not None)).encode())
    return digest.hexdigest()
