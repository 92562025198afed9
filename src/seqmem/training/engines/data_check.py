"""A check, before training, that a data set can be identified: the same arguments give the same numbers."""

import hashlib
import sys
import warnings
from collections.abc import Mapping
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

    A data set is loaded a second time, which must give the same description and the same first rows of each split. One with all
    checksums that took longer than half a second is loaded again only if it changed the global random state of torch or NumPy.
    An object other than a ``DataSet`` of this name is not checked, nor is one with all checksums that was made without
    :func:`seqmem.datasets.load`.

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
            raise UserError(f"data set {data.name} has neither a seed nor a checksum; {_REMEDY}")
        _check_repeatable(arguments, data)
        print(f"warning: data set {data.name} has no checksum of {', '.join(unknown)}; {_REMEDY}", file=sys.stderr)
    elif data.load_seconds is not None and (data.load_seconds < _MOST_SECONDS or data.drew_globally):
        _check_repeatable(arguments, data)


def _check_repeatable(arguments: Mapping[str, Any], data: DataSet) -> None:
    """Compare a data set with a second loading."""
    again = _identity(arguments)
    # If two further loadings agree, ``data`` was made with other arguments, which is for the caller to know.
    if again != (data.describe(), _numbers(data)) and _identity(arguments) != again:
        raise UserError(
            f"data set {data.name}: a second loading gives other numbers, expected the same; draw them with "
            "seqmem.data.generator(seed, ...), not with the global generators of torch, NumPy or Python"
        )


def _identity(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Load a data set, without the warnings of the first loading; return its description and its numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = datasets.load(arguments)
    return data.describe(), _numbers(data)


def _numbers(data: DataSet) -> str:
    """Return a checksum of the first rows of each split."""
    digest = hashlib.sha256()
    for split in SPLITS:
        batch = data.batch(split, torch.arange(min(_ROWS, data.sizes[split])))
        values = [getattr(batch, field.name) for field in fields(batch)]
        digest.update(sha256(*(value.numpy() for value in values if isinstance(value, torch.Tensor))).encode())
    return digest.hexdigest()
