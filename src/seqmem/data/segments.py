"""Segments of series: whole ones, parts in the order of time, and windows of a fixed number of steps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seqmem.data.provenance import sha256
from seqmem.data.splits import Split
from seqmem.errors import UserError


@dataclass(frozen=True)
class Segments:
    """m segments, each of consecutive steps of a series.

    Attributes:
        series: (m,) int64 index of the series.
        begins: (m,) int64 first step.
        lengths: (m,) int64 number of steps.
    """

    series: np.ndarray
    begins: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.series)

    @property
    def sha256(self) -> str:
        """Checksum of the segments."""
        return sha256(self.series, self.begins, self.lengths)

    @classmethod
    def whole(cls, series: np.ndarray, lengths: np.ndarray) -> "Segments":
        """Return whole series.

        Args:
            series: (m,) their indices.
            lengths: (n,) steps of all series.
        """
        return cls(series.astype(np.int64), np.zeros(len(series), np.int64), lengths[series].astype(np.int64))

    def windows(self, window: int, overlap: int) -> "Segments":
        """Return windows of ``window + overlap`` steps, of which neighbours share ``overlap``.

        The last window of a segment may be shorter; it has more than ``overlap`` steps.
        """
        counts = np.maximum(-(-(self.lengths - overlap) // window), 1)
        number = np.concatenate([np.arange(count) for count in counts.tolist()])
        ends = np.repeat(self.begins + self.lengths, counts)
        begins = np.repeat(self.begins, counts) + number * window
        return Segments(np.repeat(self.series, counts), begins, np.minimum(window + overlap, ends - begins))


def by_time(lengths: np.ndarray, fractions: dict[Split, float], names: Sequence[str], horizon: int) -> dict[Split, Segments]:
    """Cut each series into a first part for training, then one for validation and one for test.

    Args:
        lengths: (n,) steps of the series.
        fractions: of the steps, for validation and for test.
        names: of the series, for messages.
        horizon: each part must have more steps than these.

    Raises:
        UserError: a series is too short, or nothing is left for training.
    """
    series = np.arange(len(lengths))
    test = np.round(lengths * fractions["test"]).astype(np.int64)
    validation = np.round(lengths * fractions["validation"]).astype(np.int64)
    train = lengths - test - validation
    least = np.minimum(np.minimum(test, validation), train)
    if (least <= horizon).any():
        k = int(np.argmin(least))
        raise UserError(
            f"series {names[k]!r}: got {train[k]}, {validation[k]} and {test[k]} of its {lengths[k]} steps for training, "
            f"validation and test, expected more than dataset.horizon={horizon} in each; lower the horizon, or give "
            "dataset.split_by=series"
        )
    zeros = np.zeros(len(lengths), np.int64)
    return {
        "train": Segments(series, zeros, train),
        "validation": Segments(series, train, validation),
        "test": Segments(series, train + validation, test),
    }
