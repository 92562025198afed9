"""Rows of a file that is larger than the memory: mapped, and released again."""

import mmap
from pathlib import Path
from typing import Any

import numpy as np

RELEASED = 2**26
"""Bytes that may be mapped before the pages of the file are released from this process."""

_AROUND = 2**17  # the system maps pages around the ones that are read, if it has them


class MappedRows:
    """Rows (N, C) of numbers in a file, mapped into memory.

    The system counts mapped pages as memory of the process until they are released, which is done every 64 MiB.

    Args:
        path: the file.
        offset: place of the first number, in bytes.
        dtype: of the numbers.
        rows: N.
        channels: C.
    """

    def __init__(self, path: Path, offset: int, dtype: np.dtype, rows: int, channels: int):
        self._arguments = path, offset, dtype, rows, channels
        self._rows, self._channels = rows, channels
        self._map: mmap.mmap | None = None
        self._read = 0

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, rows: slice) -> np.ndarray:
        path, offset, dtype, _, channels = self._arguments
        if self._map is None:
            with open(path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        count = (rows.stop - rows.start) * channels
        start = offset + rows.start * channels * dtype.itemsize
        found = np.frombuffer(self._map, dtype, count, start).reshape(-1, channels).copy()
        self._read += max(found.nbytes, _AROUND)
        if self._read > RELEASED:
            self._read = 0
            self._map.madvise(mmap.MADV_DONTNEED)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}  # another process maps the file itself
