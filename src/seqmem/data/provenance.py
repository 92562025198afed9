"""Provenance of a data set: its files, split and random numbers."""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from seqmem.data.permutations import Permutation
from seqmem.data.splits import Split
from seqmem.errors import DataWarning


@dataclass(frozen=True)
class Provenance:
    """Origin of a data set, from which two runs on equal data are recognised.

    ``DataSet.describe`` returns it as values that JSON can hold, and each run records it. A data set without files must have a
    checksum of each split: otherwise nothing distinguishes its numbers from those of another seed or version.

    Attributes:
        seed: seed of the split, or of the whole data if it is generated; None if nothing is random.
        sha256: by split, the checksum (:func:`sha256`) of the indices of its samples in the source, or of its arrays if the
            data is generated.
        permutation: permutation of the steps of every sequence; None for the original order.
        files: sha256 of each file or bundled array that was read, by its name.
    """

    seed: int | None
    sha256: Mapping[Split, str]
    permutation: Permutation | None = None
    files: Mapping[str, str] = field(default_factory=dict)


def sha256(*arrays: np.ndarray) -> str:
    """Return the sha256, in hexadecimal, of the elements of all arrays, row-major and little-endian."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).data)
    return digest.hexdigest()


OTHER_FILES = "other files"
"""Label in tables of a data set whose files are not those that its name stands for."""


def label_of(data_set: str, found: Mapping[str, str], expected: Mapping[str, str]) -> str:
    """Compare properties of a data set's files with those of the official ones, and warn if they differ.

    Args:
        data_set: its name.
        found: checksums of the files, or other properties, by the name that messages have for them.
        expected: the same of the official files.

    Returns:
        Label of the data in tables, after the data set's name: empty for the official files, else :data:`OTHER_FILES`.
    """
    different = [f"{name}: got {found[name]}, expected {value}" for name, value in expected.items() if found[name] != value]
    if not different:
        return ""
    warnings.warn(
        f"{data_set} was not read from its official files, so that tables call it '{data_set} {OTHER_FILES}' "
        f"({'; '.join(different)})",
        DataWarning,
        stacklevel=3,
    )
    return OTHER_FILES
