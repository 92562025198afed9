"""Labelled real-valued series in memory: the base class of ``ct`` and ``uea``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from seqmem.data import SPLITS, Batch, DataSet, DataSpec, Provenance, Split
from seqmem.errors import UserError


@dataclass(frozen=True)
class Samples:
    """The sequences of a split.

    Attributes:
        series: for each sequence (T, C) floating point without missing values; T may differ.
        labels: (n,) class numbers from 0.
        times: for each sequence (T,) the time of each step, non-decreasing; None if steps are evenly spaced.
        rate: ``Batch.rate`` of the split.
        known: for each sequence (T, C) whether a value was not missing; None if none was.
    """

    series: Sequence[np.ndarray]
    labels: np.ndarray
    times: Sequence[np.ndarray] | None = None
    rate: float = 1.0
    known: Sequence[np.ndarray] | None = None


class SeriesSet(DataSet):
    """Real-valued sequences with one class each, for classification or reconstruction; shorter ones are padded."""

    def __init__(
        self,
        samples: Mapping[Split, Samples],
        classes: Sequence[str],
        provenance: Provenance,
        num_workers: int,
        problem: str = "",
        reconstruction: bool = False,
    ):
        """Pad and store the sequences; a subclass calls it last.

        Args:
            samples: the sequences of each split, with times in all of them or in none.
            classes: name of each class, by its number.
            provenance: origin of the sequences and of their split.
            num_workers: as in :class:`DataSet`.
            problem: name of the data set's problem in messages and tables, after the data set's name; empty for none.
            reconstruction: the targets are the series without masks of missing values, and the classes are ``Batch.labels``.
                Missing values do not count.

        Raises:
            UserError: a value or a time is too large for float32, or times are equal after rounding to it.
        """
        lengths = {split: np.array([len(series) for series in samples[split].series]) for split in SPLITS}
        # None for a split whose sequences are all equally long: it has no padding.
        self._lengths = {
            split: None if (array == array[0]).all() else torch.from_numpy(array) for split, array in lengths.items()
        }
        self._inputs = {split: _padded(samples[split].series) for split in SPLITS}
        for part in samples.values():
            _refuse_rounded_times(part.times or ())
        self._times = {
            split: None if part.times is None else _padded([times[:, None] for times in part.times], mode="edge").squeeze(-1)
            for split, part in samples.items()
        }
        self._labels = {split: torch.from_numpy(part.labels.astype(np.int64)) for split, part in samples.items()}
        self._rates = {split: part.rate for split, part in samples.items()}
        channels = self._inputs["train"].shape[-1]
        self._known = {
            split: None if part.known is None or not reconstruction else _padded(part.known).bool()
            for split, part in samples.items()
        }
        self._channels = channels if samples["train"].known is None else samples["train"].known[0].shape[-1]
        self._reconstruction = reconstruction
        spec = DataSpec(
            f"{self.name} {problem}".strip(),
            input_size=channels,
            output_size=self._channels if reconstruction else len(classes),
            task="reconstruction" if reconstruction else "classification",
            output_steps=None if reconstruction else 0,
            max_length=max(int(array.max()) for array in lengths.values()),
            times=samples["train"].times is not None,
            class_names=tuple(classes),
        )
        super().__init__(spec, {split: len(array) for split, array in lengths.items()}, provenance, num_workers)

    def batch(self, split: Split, indices: Tensor) -> Batch:
        """Return inputs (B, T, C) and targets (B,), with any lengths and times.

        For reconstruction the targets are the inputs without masks of missing values, and the classes are ``labels`` (B,).
        Missing values do not count (``known``).
        """
        lengths, times, known = self._lengths[split], self._times[split], self._known[split]
        inputs, labels = self._inputs[split][indices], self._labels[split][indices]
        return Batch(
            inputs,
            inputs[..., : self._channels].clone() if self._reconstruction else labels,
            lengths=None if lengths is None else lengths[indices],
            times=None if times is None else times[indices],
            known=None if known is None else known[indices],
            labels=labels if self._reconstruction else None,
            rate=self._rates[split],
        )


def _refuse_rounded_times(times: Sequence[np.ndarray]) -> None:
    for number, row in enumerate(times):
        with np.errstate(over="ignore", invalid="ignore"):  # a time beyond float32 is refused with the values
            equal = (np.diff(row) > 0) & (np.diff(row.astype(np.float32)) == 0)
        if equal.any():
            step = int(equal.argmax())
            raise UserError(
                f"times of series {number}: got {row[step]!r} and {row[step + 1]!r}, which are equal in float32; subtract the "
                "first time of each series"
            )


def _padded(series: Sequence[np.ndarray], mode: Literal["constant", "edge"] = "constant") -> Tensor:
    """(n, T, C) float32 with T of the longest; the others are padded with 0, or with their last value if ``mode`` is "edge"."""
    longest = max(len(array) for array in series)
    with np.errstate(over="ignore"):
        rows = [np.pad(array.astype(np.float32), ((0, longest - len(array)), (0, 0)), mode) for array in series]
    values = np.stack(rows)
    if not np.isfinite(values).all():
        raise UserError("a series or its times have a value beyond 3.4e38, the largest of float32")
    return torch.from_numpy(values)
