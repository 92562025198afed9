"""Preparation of a user's series for a model: standardisation, missing values and classes, kept for later inputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from seqmem.arguments import check
from seqmem.errors import UserError
from seqmem.io.collection import Collection

Missing = Literal["last", "mean", "mask", "refuse"]


@dataclass(frozen=True)
class Preparation:
    """How values of C channels become inputs of a model; everything that later inputs need.

    Attributes:
        channels: names of the channels.
        mean: (C) subtracted from each channel.
        deviation: (C) each channel is divided by it.
        fill: (C) the mean of each channel in the training split, in the unit of the inputs.
        missing: what becomes of a missing value: "last", the previous value of its channel in the series, or else ``fill``;
            "mean", ``fill``; "mask", as "last", with C more channels, 1 for a value and 0 for a missing one; "refuse".
        class_names: of the classes; None without.
        target_names: of the D values to predict; empty without.
        target_mean: (D) subtracted from each of them.
        target_deviation: (D) each of them is divided by it.
        layout: of the training's table; None for other files.
        windowed: the training cut series into windows.
        standardizes: mean and deviation are those of the training split, which may be 0 and 1.
        step_columns: names of the columns of values of the training's wide table.
        dated: the times are dates; None unless they are an input. Durations of earlier checkpoints are dates, too.
        column_count: number of columns of the training's table without a header; None for others.
        optional_columns: those of them that have labels, groups and splits, which new files may lack.
        in_durations: the times are durations; None unless they are an input, or for earlier checkpoints.
    """

    channels: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    fill: tuple[float, ...]
    missing: Missing = "last"
    class_names: tuple[str, ...] | None = None
    target_names: tuple[str, ...] = ()
    target_mean: tuple[float, ...] = ()
    target_deviation: tuple[float, ...] = ()
    layout: Literal["long", "wide"] | None = None
    windowed: bool = False
    standardizes: bool = True
    step_columns: tuple[str, ...] = ()
    dated: bool | None = None
    column_count: int | None = None
    optional_columns: tuple[str, ...] = ()
    in_durations: bool | None = None

    @property
    def input_size(self) -> int:
        """Channels of the inputs."""
        return len(self.channels) * (2 if self.missing == "mask" else 1)

    def saved(self) -> dict[str, Any]:
        """Return the preparation as values that JSON and a checkpoint can hold."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def loaded(cls, saved: Mapping[str, Any]) -> "Preparation":
        """Create what :meth:`saved` returned.

        Raises:
            UserError: it is something else.
        """
        found = cls(**check(cls, {name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()}))
        sizes = {len(found.channels), len(found.mean), len(found.deviation), len(found.fill)}
        targets = {len(found.target_names), len(found.target_mean), len(found.target_deviation)}
        if len(sizes) > 1 or len(targets) > 1:
            raise UserError("the preparation of the inputs is damaged: its statistics are not those of its channels")
        return found

    def checked(self, found: Collection) -> Collection:
        """Return series with these channels, in this order.

        Raises:
            UserError: they have other channels, or a different kind of times.
        """
        kind = "dates" if found.is_dated else "durations" if found.in_durations else "numbers"
        if found.times is not None and self.dated is not None and kind not in self._kinds_of_times():
            expected = "durations, or numbers of seconds," if self.in_durations else self._kinds_of_times()[0]
            raise UserError(f"{found.path}: got {kind} as times, expected {expected} as in the training")
        if set(found.channels) != set(self.channels):
            raise UserError(
                f"{found.path}: got the channels {', '.join(found.channels[:8])}, expected {', '.join(self.channels[:8])} as "
                "in the training"
            )
        return found.with_channels(self.channels)

    def _kinds_of_times(self) -> list[str]:
        """Return what the times may be: in the place of durations, numbers of seconds.

        Earlier checkpoints do not say whether theirs are durations.
        """
        if self.in_durations is None:
            return ["dates" if self.dated else "numbers", "durations"]
        return ["durations", "numbers"] if self.in_durations else ["dates" if self.dated else "numbers"]

    def inputs(
        self,
        values: np.ndarray,
        lengths: np.ndarray,
        before: np.ndarray | None = None,
        place: Callable[[int, int], str] = "series {}, step {}".format,
    ) -> np.ndarray:
        """Return the inputs of series.

        Args:
            values: (N, C) of series one after the other, NaN for a missing value.
            lengths: (n,) their numbers of steps, N together.
            before: (n, C) last values before the series, from which missing ones at its beginning are filled; NaN for none.
            place: returns where a step of a series is, by their numbers, for a message.

        Returns:
            (N, C) float32, or (N, 2 C) with a mask.

        Raises:
            UserError: a value is missing and refused, or is too large for float32.
        """
        standardised = (values.astype(np.float64) - np.array(self.mean)) / np.array(self.deviation)
        missing = np.isnan(standardised)
        if missing.any():
            if before is not None:
                starts = np.cumsum(lengths) - lengths
                earlier = (before - np.array(self.mean)) / np.array(self.deviation)
                standardised[starts] = np.where(missing[starts], earlier, standardised[starts])
            standardised = self._filled(standardised, missing, lengths, place)
        with np.errstate(over="ignore"):
            inputs = standardised.astype(np.float32)
        _refuse_infinite(inputs, values, [f"channel {name}" for name in self.channels])
        return np.concatenate([inputs, ~missing], 1, dtype=np.float32) if self.missing == "mask" else inputs

    def _filled(
        self, standardised: np.ndarray, missing: np.ndarray, lengths: np.ndarray, place: Callable[[int, int], str]
    ) -> np.ndarray:
        # Imported here because it takes a second, and listing the data sets must be fast.
        import pandas as pd

        if self.missing == "refuse":
            row, channel = np.argwhere(missing)[0]
            series = int(np.searchsorted(np.cumsum(lengths), row, side="right"))
            step = int(row) - int(np.concatenate([[0], np.cumsum(lengths)])[series])
            raise UserError(
                f"{place(series, step)}, channel {self.channels[channel]}: got a missing value, expected none, since the "
                "training has dataset.missing=refuse; fill it in, or train with last, mean or mask"
            )
        if self.missing != "mean":
            owners = np.repeat(np.arange(len(lengths)), lengths)
            standardised = pd.DataFrame(standardised).groupby(owners, sort=False).ffill().to_numpy()
        return np.where(np.isnan(standardised), np.array(self.fill), standardised)

    def undo(self, values: np.ndarray) -> np.ndarray:
        """Convert standardised channels (..., C) to their own unit, float64."""
        return values.astype(np.float64) * np.array(self.deviation) + np.array(self.mean)

    def standard_targets(self, targets: np.ndarray) -> np.ndarray:
        """Return values to predict (n, D), standardised, float32.

        Raises:
            UserError: a value is too large for float32.
        """
        with np.errstate(over="ignore"):
            found = ((targets - np.array(self.target_mean)) / np.array(self.target_deviation)).astype(np.float32)
        return _refuse_infinite(found, targets, [f"value to predict {name}" for name in self.target_names])

    def undo_targets(self, values: np.ndarray) -> np.ndarray:
        """Convert standardised values to predict (n, D) to their own unit, float64."""
        return values.astype(np.float64) * np.array(self.target_deviation) + np.array(self.target_mean)


def _refuse_infinite(converted: np.ndarray, values: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return values (n, C) in float32, if all are finite there."""
    wrong = np.argwhere(~np.isfinite(converted))
    if len(wrong):
        row, column = wrong[0]
        raise UserError(
            f"{names[column]}: got {values[row, column]:g}, which is beyond the range of float32; divide it by a constant, or "
            "give dataset.standardize=true"
        )
    return converted
