"""Statistics of the channels of series of any total size."""

from collections.abc import Iterable, Iterator, Sequence
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
        steps: N, number of rows.
        count: (C,) float64, number of values that are not missing.
        mean: (C,) float64, their mean, in the unit of the values; 0 without values.
        squares: (C,) float64, their summed squared deviations from the mean, in that unit squared.
    """

    steps: int
    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, parts: Iterable[np.ndarray], channels: int) -> "Statistics":
        """Return the statistics of values that come in parts, by the method of Chan, Golub and LeVeque (1983).

        Args:
            parts: each (n, C) of finite numbers, NaN for a missing value; n may differ.
            channels: C.
        """
        found = cls(0, np.zeros(channels), np.zeros(channels), np.zeros(channels))
        for part in parts:
            found._add(part.astype(np.float64))
        return found

    def refuse_infinite(self, names: Sequence[str], where: str) -> None:
        """Refuse statistics beyond the range of float64, since squares of the values are.

        Args:
            names: of the channels.
            where: what has them, for the message.

        Raises:
            UserError: naming the first such channel.
        """
        for name, mean, squares in zip(names, self.mean.tolist(), self.squares.tolist(), strict=True):
            if not np.isfinite([mean, squares]).all():
                raise UserError(f"{where} {name}: got values so large that their squares overflow; divide it by a constant")

    def _add(self, part: np.ndarray) -> None:
        present = ~np.isnan(part)
        count = present.sum(0)
        total = np.maximum(self.count + count, 1)
        with np.errstate(over="ignore", invalid="ignore"):  # see refuse_infinite
            mean = np.where(present, part, 0.0).sum(0) / np.maximum(count, 1)
            squares = (np.where(present, part - mean, 0.0) ** 2).sum(0)
            shift = mean - self.mean
            self.squares = self.squares + squares + shift**2 * self.count * count / total
        self.mean = self.mean + shift * count / total
        self.count = self.count + count
        self.steps += len(part)

    @property
    def deviation(self) -> np.ndarray:
        """(C,) standard deviation of each channel; 1 for a constant one, whose deviation is 0 up to rounding."""
        return np.where(self.constant, 1.0, self._spread)

    @property
    def constant(self) -> np.ndarray:
        """(C,) whether a channel has the same value everywhere, or none."""
        return self._spread <= 1e-12 * np.abs(self.mean)

    @property
    def _spread(self) -> np.ndarray:
        return np.sqrt(self.squares / np.maximum(self.count, 1))


def of_segments(collection: Collection, segments: Segments) -> Statistics:
    """Return the statistics of the channels over some segments.

    Steps of several segments count for each of them: windows share some.

    Raises:
        UserError: a value is infinite; the message names the series, the step and the channel.
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
            values = collection.values[begin : min(begin + most, start + length)]
            if not collection.in_memory:  # others were checked as they were read
                collection.refuse_infinite(values, begin)
            waiting.append(values)
            rows += len(values)
            if rows >= most:
                yield np.concatenate(waiting)
                waiting, rows = [], 0
    if waiting:
        yield np.concatenate(waiting)
