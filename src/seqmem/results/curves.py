"""Learning curves: read from metrics.csv, averaged over trials, and thinned for a figure."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from seqmem.errors import UserError
from seqmem.results.aggregate import Trials
from seqmem.results.record import RunFolder

Point = TypeVar("Point")
Curve = list[tuple[int, float]]
"""(epoch from 1, value) of each epoch with a value."""
MeanCurve = list[tuple[int, float, float, float]]
"""(epoch, mean, minimum, maximum) over the trials that have the epoch."""


def read_curve(folder: RunFolder, column: str) -> Curve:
    """Read a column of metrics.csv; empty if no epoch has ended.

    Raises:
        UserError: the file is damaged.
    """
    path = folder.path / "metrics.csv"
    try:
        with open(path, encoding="utf-8", newline="") as file:
            lines = csv.reader(file)
            header = next(lines)
            epoch, value = header.index("epoch"), header.index(column)
            return [(int(line[epoch]) + 1, float(line[value])) for line in lines if line[value]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, IndexError, StopIteration, csv.Error) as error:
        raise UserError(f"metrics.csv cannot be read ({str(error) or 'it is empty'})") from None


def read_curves(groups: Iterable[Trials]) -> tuple[dict[Path, Curve], dict[Path, str]]:
    """Read the validation curve of every run with a known metric, and the problems of those that fail, by folder."""
    curves: dict[Path, Curve] = {}
    problems: dict[Path, str] = {}
    for group in groups:
        for run in group.runs if group.metric else []:
            try:
                curves[run.folder.path] = read_curve(run.folder, f"val/{group.metric}")
            except UserError as error:
                problems[run.folder.path] = str(error)
            else:
                if run.record.get("epochs") and not curves[run.folder.path]:
                    problems[run.folder.path] = "there is no epoch in metrics.csv"
    return curves, problems


def mean_curve(curves: Sequence[Curve]) -> MeanCurve:
    """Return mean, minimum and maximum of several curves at each epoch."""
    values: dict[int, list[float]] = {}
    for curve in curves:
        for epoch, value in curve:
            values.setdefault(epoch, []).append(value)
    return [(epoch, sum(found) / len(found), min(found), max(found)) for epoch, found in sorted(values.items())]


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """Return at most ``most`` evenly spaced points, including the first and the last.

    >>> thinned([0, 1, 2, 3, 4], 3)
    [0, 2, 4]
    """
    if len(points) <= most:
        return list(points)
    return [points[round(k * (len(points) - 1) / (most - 1))] for k in range(most)]
