"""Predictions for new series of a user, in the units and with the labels of the files that a model was trained on."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from seqmem.data.batch import Batch
from seqmem.data.preparation import Preparation
from seqmem.data.prepared import PreparedSeries
from seqmem.data.segments import Segments
from seqmem.data.spec import DataSpec
from seqmem.io.collection import Collection
from seqmem.models import SequenceModel
from seqmem.training.backend import cudnn_as_matmul

if TYPE_CHECKING:
    import pandas as pd

Row = list[str]


def segments_for(found: Collection, spec: DataSpec, windowed: bool) -> Segments:
    """Return the steps of each series that the model gets.

    Args:
        found: the new series.
        spec: of the training's data.
        windowed: the training cut series into windows. Then a forecast is made from as many last steps, and a reconstruction
            window by window.
    """
    whole = Segments.whole(np.arange(len(found)), found.lengths)
    if not windowed:
        return whole
    if spec.task == "reconstruction":
        return whole.windows(spec.max_length, 0)
    lengths = np.minimum(whole.lengths, spec.max_length)
    return Segments(whole.series, whole.lengths - lengths, lengths)


def outputs_of(
    model: SequenceModel, series: PreparedSeries, spec: DataSpec, batch_size: int, device: torch.device
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the outputs of each sequence, and its channels.

    Args:
        model: trained.
        series: the prepared sequences.
        spec: of the training's data.
        batch_size: B.
        device: where to compute.

    Returns:
        For each sequence (K,) or (T, D), and (T, C) standardised, NaN for a missing value, without padding.
    """
    model.eval().to(device)
    dtype = next((value.dtype for value in model.parameters() if value.is_floating_point()), torch.float32)
    with torch.no_grad(), cudnn_as_matmul():
        for indices in torch.arange(len(series)).split(batch_size):
            inputs, channels, known, lengths, times = series.batch(indices)
            assert channels is not None
            given = channels if known is None else channels.where(known, float("nan"))
            targets = channels if spec.output_steps is None else _no_targets(spec, len(indices))
            batch = Batch(inputs.to(dtype), targets, lengths, None if times is None else times.to(dtype))
            outputs = model(batch.to(device)).float().cpu()
            valid = batch.row_lengths.tolist()
            for row, length in enumerate(valid):
                own = outputs[row] if spec.output_steps == 0 else outputs[row, :length]
                yield own.numpy(), given[row, :length].numpy()


def _no_targets(spec: DataSpec, count: int) -> Tensor:
    if spec.task == "classification":
        return torch.zeros(count, dtype=torch.int64)
    return torch.zeros(count, spec.output_size)


class Written:
    """Lines of a table of predictions.

    Args:
        found: the new series.
        preparation: of the training.
        spec: of the training's data.
        segments: the steps of each sequence.
        horizon: of forecasting.
    """

    def __init__(self, found: Collection, preparation: Preparation, spec: DataSpec, segments: Segments, horizon: int):
        self._found, self._preparation, self._spec = found, preparation, spec
        self._segments, self._horizon = segments, horizon

    def header(self) -> Row:
        """Return the names of the columns; a channel or value with the name of a different column gets a longer name."""
        channels = list(self._preparation.channels)
        known = ["label"] if self._found.labels is not None else []
        match self._spec.task:
            case "classification":
                return ["series", *known, "prediction", *(f"probability {name}" for name in self._spec.class_names or ())]
            case "regression":
                names = self._preparation.target_names
                predicted = [f"predicted {name}" for name in names]
                given = [] if self._found.targets is None else _distinct("value", names, ["series", *predicted])
                return ["series", *given, *predicted]
            case "forecasting":
                own = ["series", "step", *(["time"] if self._found.times is not None else [])]
                return [*own, *_distinct("channel", channels, own)]
            case _:
                own = ["series", "step", "error"]
                return [*own[:2], *_distinct("channel", channels, own), *own[2:]]

    def rows(self, sequence: int, outputs: np.ndarray, channels: np.ndarray) -> Iterator[Row]:
        """Yield the lines of a sequence.

        Args:
            sequence: its index.
            outputs: of the model.
            channels: (T, C) standardised, NaN for a missing value, which does not count in an error.
        """
        series, begin = int(self._segments.series[sequence]), int(self._segments.begins[sequence])
        name = self._found.names[series]
        if self._spec.task == "classification":
            probabilities = torch.from_numpy(outputs).double().softmax(-1).tolist()
            names = self._spec.class_names or ()
            known = [] if self._found.labels is None else [self._found.labels[series] or ""]
            yield [name, *known, names[int(outputs.argmax())], *map(_number, probabilities)]
        elif self._spec.task == "regression":
            given = [] if self._found.targets is None else self._found.targets[series].tolist()
            yield [name, *map(_number, given), *map(_number, self._preparation.undo_targets(outputs).tolist())]
        elif self._spec.task == "forecasting":
            # The output at a step is the value the horizon later, so the last ones are those after the series.
            last = self._preparation.undo(outputs[-self._horizon :])
            steps = range(begin + len(outputs) + self._horizon - len(last), begin + len(outputs) + self._horizon)
            times = (
                [[]] * len(steps) if self._found.times is None else [[time] for time in times_at(self._found, series, steps)]
            )
            for step, time, values in zip(steps, times, last.tolist(), strict=True):
                yield [name, str(step), *time, *map(_number, values)]
        else:
            squared = np.square(outputs.astype(np.float64) - channels)
            present = ~np.isnan(squared)
            counts = present.sum(-1)
            errors = np.where(counts, squared.sum(-1, where=present) / np.maximum(counts, 1), np.nan)
            values = self._preparation.undo(outputs).tolist()
            for step, (each, error) in enumerate(zip(values, errors.tolist(), strict=True), begin):
                yield [name, str(step), *map(_number, each), _number(error)]


def times_at(found: Collection, series: int, steps: Sequence[int]) -> list[str]:
    """Return the times of steps after a series with times.

    Args:
        found: the series.
        series: its index.
        steps: increasing numbers of steps, from the first of the series.

    Returns:
        Dates by :func:`dates_after`; numbers at the median interval of the series. Empty ones after a series of one step,
        whose interval is not known.
    """
    assert found.times is not None
    assert found.origins is not None
    start, length = int(found.starts[series]), int(found.lengths[series])
    if length == 1:
        return [""] * len(steps)
    own = float(found.origins[series]) + found.times[start : start + length]
    further = [step - (length - 1) for step in steps]
    if found.is_dated:
        return dates_after(own, further, found.time_unit)
    interval = float(np.median(np.diff(own)))
    digits = 12 if interval == 0 else 4 + math.ceil(math.log10(max(abs(float(own[-1])) / interval, 1.0)))
    return [f"{float(own[-1]) + k * interval:.{min(max(digits, 12), 17)}g}" for k in further]


def dates_after(seconds: np.ndarray, further: Sequence[int], unit: str) -> list[str]:
    """Return dates after others in ISO 8601.

    Args:
        seconds: (T,) dates before, since 1970; at least two.
        further: how many steps each is after the last of them, increasing.
        unit: as of :class:`seqmem.io.collection.Collection`; with an offset, dates are in UTC and say so.

    Returns:
        Dates at the frequency of all that are before, such as days of work, or the same day of each month; else at their median
        interval.
    """
    import pandas as pd

    stamps = pd.to_datetime(np.round(seconds * 1e6).astype(np.int64), unit="us", utc=unit == "seconds in UTC")
    for frequency in _frequencies(stamps):
        after = pd.date_range(stamps[0], periods=len(stamps) + further[-1], freq=frequency)
        if (after[: len(stamps)] == stamps).all():
            return [after[len(stamps) - 1 + k].isoformat() for k in further]
    interval = float(np.median(np.diff(seconds)))
    return [(stamps[-1] + pd.Timedelta(round(k * interval * 1e6), unit="us")).isoformat() for k in further]


def _frequencies(stamps: "pd.DatetimeIndex") -> "list[str | pd.DateOffset]":
    """Return frequencies that dates may have: the one that pandas infers, and whole months."""
    import pandas as pd

    if len(stamps) < 3:
        return []
    months = 12 * (stamps[1].year - stamps[0].year) + stamps[1].month - stamps[0].month
    inferred = pd.infer_freq(stamps)
    return [*([] if inferred is None else [inferred]), *([pd.DateOffset(months=months)] if months > 0 else [])]


def _distinct(kind: str, names: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return names of columns, of which those that other columns have begin with their kind."""
    found: list[str] = []
    for name in names:
        new = name
        while new in others or (new != name and new in names):
            new = f"{kind} {new}"
        found.append(new)
    return found


def _number(value: Any) -> str:
    return "" if value != value else f"{value:.8g}"
