"""Results by length of a report's rows: the trials of each row at each length, as tables, a CSV file and axes of a figure."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from seqmem.errors import UserError
from seqmem.results import by_length
from seqmem.results.aggregate import Trials, mean_and_deviation
from seqmem.results.evaluations import is_of_weights, weights_of_result
from seqmem.results.formats import Columns
from seqmem.results.intervals import mean_interval
from seqmem.results.reading import Run
from seqmem.results.table import interval, not_finite, number, spread_of


@dataclass(frozen=True)
class LengthRow:
    """A row's results at several lengths.

    Attributes:
        row: its number in the report.
        trials: of the row.
        values: by length, the metric of each trial that was evaluated at it.
    """

    row: int
    trials: Trials
    values: Mapping[int, Sequence[float]]

    @property
    def points(self) -> list[tuple[int, float, float, float]]:
        """(length, mean, minimum, maximum) over the trials of each length."""
        return [(length, mean_and_deviation(each)[0], min(each), max(each)) for length, each in self.values.items()]

    @property
    def trained(self) -> tuple[int, int] | None:
        """Shortest and longest length of the training; None if they are not known."""
        return by_length.training_lengths(self.trials.settings or {})


@dataclass(frozen=True)
class LengthTable:
    """The rows of one data set by length.

    Attributes:
        dataset: name of the data set.
        metric: of the cells.
        columns: model, n (finished trials), their states if a row has unfinished ones, and mean, deviation and interval at
            each length.
        means: the same, with the mean alone at each length.
        rows: number of each line's row in the report.
    """

    dataset: str
    metric: str
    columns: Columns
    means: Columns
    rows: Sequence[int]


def length_rows(groups: Sequence[Trials], chosen: Sequence[int] = ()) -> list[LengthRow]:
    """Return the rows with trials that ``seqmem evaluate TRIAL lengths=A,B,...`` has evaluated.

    Evaluations count if they are of the trial's own data but for the length, and of the weights that gave its result. Those of
    a row at a length are on the same number of sequences, see :func:`seqmem.results.by_length.comparable`.

    Args:
        groups: trials, a row each.
        chosen: lengths; empty for all.

    Raises:
        UserError: no trial was evaluated at one of the chosen lengths.
    """
    found = [LengthRow(k, group, _values(counted_evaluations(group))) for k, group in enumerate(groups)]
    known = sorted({length for row in found for length in row.values})
    for length in chosen:
        if length not in known:
            near = f"; did you mean {min(known, key=lambda each: abs(each - length))}?" if known else ""
            raise UserError(
                f"--lengths: got {length}, expected lengths of seqmem evaluate TRIAL lengths=A,B,..., "
                f"{', '.join(map(str, known)) or 'which no trial has'}{near}"
            )
    kept = [
        LengthRow(row.row, row.trials, {length: row.values[length] for length in sorted(row.values) if _is_in(length, chosen)})
        for row in found
    ]
    return [row for row in kept if row.values]


def counted_evaluations(group: Trials) -> dict[int, dict[Path, by_length.AtLength]]:
    """Return by length the evaluation of each trial by its folder, see :func:`seqmem.results.by_length.comparable`."""
    return by_length.comparable({run.folder.path: _of_result(run, group.metric) for run in group.finished})


def length_tables(rows: Iterable[LengthRow]) -> list[LengthTable]:
    """Return a table for each data set, with a column for each of its lengths."""
    datasets: dict[str, list[LengthRow]] = {}
    for row in rows:
        datasets.setdefault(row.trials.dataset, []).append(row)
    return [_table(name, own) for name, own in datasets.items()]


def length_lines(rows: Iterable[LengthRow]) -> Columns:
    """Return the columns of a CSV file in full precision, with a line for each row and length.

    They are dataset, model, metric, length, n (trials), unfinished (number), mean, std, and low and high, the ends of the 95 %
    interval.
    """
    lines: list[tuple[object, ...]] = [
        (
            row.trials.dataset,
            row.trials.model,
            row.trials.metric,
            length,
            len(values),
            len(row.trials.unfinished),
            *mean_and_deviation(values),
            *mean_interval(values),
        )
        for row in rows
        for length, values in row.values.items()
    ]
    names = ("dataset", "model", "metric", "length", "n", "unfinished", "mean", "std", "low", "high")
    return {name: ["" if line[k] != line[k] else str(line[k]) for line in lines] for k, name in enumerate(names)}


def _values(evaluations: Mapping[int, Mapping[Path, by_length.AtLength]]) -> dict[int, list[float]]:
    return {length: [each.value for each in found.values()] for length, found in evaluations.items()}


def _of_result(run: Run, metric: str) -> Iterator[by_length.AtLength]:
    """Yield the evaluations of a trial's data by the weights that gave its result."""
    found = [each for each in by_length.read(run.folder.path) if not each.variant and each.metric == metric]
    weights = weights_of_result(run.folder) if found else None
    for each in found:
        if is_of_weights(each.record, weights, run.record.get("best_epoch")):
            yield each


def _table(dataset: str, rows: Sequence[LengthRow]) -> LengthTable:
    lengths = sorted({length for row in rows for length in row.values})
    first = {"model": [row.trials.model for row in rows], "n": [str(len(row.trials.finished)) for row in rows]}
    if any(row.trials.unfinished for row in rows):
        first["not finished"] = [row.trials.states or "-" for row in rows]
    return LengthTable(
        dataset,
        rows[0].trials.metric,
        first | {str(length): [_with_n(row, length, _spread_and_interval) for row in rows] for length in lengths},
        first | {str(length): [_with_n(row, length, _mean) for row in rows] for length in lengths},
        [row.row for row in rows],
    )


def _with_n(row: LengthRow, length: int, text: Callable[[Sequence[float]], str]) -> str:
    """Return the text of a cell, with the number of its trials where some finished ones have no value."""
    values = row.values.get(length, ())
    return text(values) if len(values) in (0, len(row.trials.finished)) else f"{text(values)}, n={len(values)}"


def _mean(values: Sequence[float]) -> str:
    return not_finite(values) or number(mean_and_deviation(values)[0])


def _spread_and_interval(values: Sequence[float]) -> str:
    low, high = mean_interval(values)
    return spread_of(values) + ("" if math.isnan(low) else f" ({interval(low, high)})")


def _is_in(length: int, chosen: Sequence[int]) -> bool:
    return not chosen or length in chosen
