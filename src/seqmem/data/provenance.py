"""Provenance of a data set: its files, split and random numbers."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from seqmem.data.permutations import Permutation
from seqmem.data.splits import Split


@dataclass(frozen=True)
class Provenance:
    """Origin of a data set, from which two runs on equal data are recognised.

    ``DataSet.describe`` returns it as values that JSON can hold, and each run records it.

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
