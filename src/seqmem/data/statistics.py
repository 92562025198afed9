"""Statistics of the channels of series of any total size."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from seqmem.data.segments import Segments
from seqmem.errors import UserError
from seqmem.io.collection import Collection

_values = 2**20


@dataclass
class Statistics:
    """Count, mean and sum of squared deviations of each channel, gathered part by part.

    Attributes:
        steps: number of rows.
        count: (C,) number of values that are not missing.
        mean: (C,) their mean.
        squares: (C,) their summed squared deviations from the mean.
    """

    steps: int
    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, parts: Iterable[np.ndarray], channels: int) -> "Statistics":
        """Return the statistics of values (N, C) that come in parts, by the method of Chan, Golub and LeVeque (1983).

        Raises:
            UserError: a value is infinite.
        """
        found = cls(0, np.zeros(channels), np.zeros(channels), np.zeros(channels))
        for part in parts:
            found._add(part.astype(np.float64))
        return found

    def _add(self, part: np.ndarray) -> None:
        if np.isinf(part).any():
            channel = int(np.argwhere(np.isinf(part))[0, 1])
            raise UserError(f"channel {channel}: got an infinite value, expected a finite number, or NaN for a missing one")
        present = ~np.isnan(part)
        count = present.sum(0)
        mean = np.where(present, part, 0.0).sum(0) / np.maximum(count, 1)
        squares = np.where(present, part - mean, 0.0).__pow__(2).sum(0)
        total = np.maximum(self.count + count, 1)
        shift = mean - self.mean
        self.squares = self.squares + squares + shift**2 * self.count * count / total
        self.mean = self.mean + shift * count / total
        self.count = self.count + count
        self.steps += len(part)

    @property
    def deviation(self) -> np.ndarray:
        """(C,) standard deviation of each channel; 1 for a constant one, whose deviation is 0 up to rounding."""
        deviation = np.sqrt(self.squares / np.maximum(self.count, 1))
        return np.where(deviation > 1e-12 * np.abs(self.mean), deviation, 1.0)

    @property
    def constant(self) -> np.ndarray:
        """(C,) whether a channel has the same value everywhere, or none."""
        return np.sqrt(self.squares / np.maximum(self.count, 1)) <= 1e-12 * np.abs(self.mean)


def of_segments(collection: Collection, segments: Segments) -> Statistics:
    """Return the statistics of the channels over some segments.

    Raises:
        UserError: a value is infinite.
    """
    return Statistics.of(_parts(collection, segments), len(collection.channels))


def _parts(collection: Collection, segments: Segments) -> Iterator[np.ndarray]:
    """Yield the rows of segments, about a million values at a time."""
    most = max(1, _values // len(collection.channels))
    first = collection.starts[segments.series] + segments.begins
    waiting: list[np.ndarray] = []
    rows = 0
    for start, length in zip(first.tolist(), segments.lengths.tolist(), strict=True):
        for begin in range(start, start + length, most):
            waiting.append(collection.values[begin : min(begin + most, start + length)])
            rows += len(waiting[-1])
            if rows >= most:
                yield np.concatenate(waiting)
                waiting, rows = [], 0
    if waiting:
        yield np.concatenate(waiting)
