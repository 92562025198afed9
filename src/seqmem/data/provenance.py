"""Where a data set came from and how it was split: what a reader needs to know that two runs saw the same data."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from seqmem.data.permutation import Permutation
from seqmem.data.splits import Split


@dataclass(frozen=True)
class Provenance:
    """A record that JSON can hold (``DataSet.describe`` shows it).

    Attributes:
        seed: of the split, or of the whole data where it is generated; None if nothing is drawn.
        sha256: for each split, of the indices of its samples in the source, or of its arrays where the data is generated
            (:func:`sha256`).
        permutation: of the steps of every sequence; None if they keep their order.
        files: sha256 of each file or bundled array that was read, by its name.
    """

    seed: int | None
    sha256: Mapping[Split, str]
    permutation: Permutation | None = None
    files: Mapping[str, str] = field(default_factory=dict)


def sha256(*arrays: np.ndarray) -> str:
    """The sha256, in hexadecimal, of the arrays' elements in row-major order, little-endian, one array after the other."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).data)
    return digest.hexdigest()
