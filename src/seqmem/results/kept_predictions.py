"""Predictions that evaluations of a trial have kept, as a score for each test sequence."""

import csv
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from seqmem.data.batch import IGNORE_INDEX
from seqmem.errors import UserError
from seqmem.io.files import json_object
from seqmem.results.evaluations import checksum, is_of_weights, weights_of_result
from seqmem.results.experiment import data_checksum
from seqmem.results.reading import Run

NOT_KEPT = "no predictions of the test split are kept"
"""The reason that an evaluation which keeps them mends."""

_ROUNDING = 1e-3
"""Relative difference between a metric and the mean of its scores, which are of predictions in float32."""


@dataclass(frozen=True)
class Scores:
    """The metric of a trial, test sequence by test sequence.

    Attributes:
        trial: folder of the trial.
        data: checksum of the data's description.
        names: (n,) names of the sequences; None if the data set has none.
        lengths: (n,) steps of the inputs.
        rows: (N,) number of the sequence of each target.
        targets: (N,) or (N, D) targets, of which each sequence has one or several.
        sums: (n,) sum over the values of a sequence that count: 1 for a correct class, bits, or squared errors.
        weights: (n,) number of these values.
    """

    trial: Path
    data: str
    names: np.ndarray | None
    lengths: np.ndarray
    rows: np.ndarray
    targets: np.ndarray
    sums: np.ndarray
    weights: np.ndarray

    @property
    def mean(self) -> float:
        """The metric over all sequences."""
        return float(self.sums.sum() / self.weights.sum())


def kept_scores(run: Run, metric: str) -> Scores | str:
    """Return the scores of a finished trial from the predictions that its newest evaluation on the test split has kept.

    Only evaluations of the weights that gave the trial's result count, on the data of the trial.

    Returns:
        The scores, or the reason why there are none.
    """
    if metric not in _SCORES:
        return f"{metric} is not a mean over test sequences"
    reason = NOT_KEPT
    paths = sorted((run.folder.path / "evaluations").glob("*.json"), reverse=True)
    weights = weights_of_result(run.folder) if paths else None
    for path in paths:
        try:
            evaluation = json_object(path)
            if not _is_of_result(evaluation, run, weights):
                continue
            if run.data and data_checksum(evaluation["data"]) != run.data:
                reason = f"the predictions of {path} are of different data than the trial's"
                continue
            return _scores(run, evaluation, metric)
        except UserError as error:
            reason = str(error)
        except (OSError, ValueError, LookupError, TypeError, BadZipFile, StopIteration) as error:
            reason = f"the predictions of {path} cannot be read ({type(error).__name__}: {error})"
    return reason


def check_same_sequences(first: Scores, second: Scores) -> None:
    """Check that two trials were tested on the same sequences.

    Raises:
        UserError: naming what differs.
    """
    if different := different_sequences(first, second):
        raise UserError(
            f"predictions of {first.trial} and {second.trial}: got test sequences of different {different}, "
            "expected the same sequences in both"
        )


def different_sequences(first: Scores, second: Scores) -> str:
    """Return what differs between the test sequences of two trials: data, names, lengths or targets; empty if nothing does."""
    same = {
        "data": first.data == second.data,
        "number of sequences": len(first.sums) == len(second.sums),
        "names": _equal(first.names, second.names),
        "lengths": _equal(first.lengths, second.lengths),
        "targets": _equal(first.rows, second.rows) and _equal(first.targets, second.targets),
    }
    return next((name for name, is_same in same.items() if not is_same), "")


def _equal(first: np.ndarray | None, second: np.ndarray | None) -> bool:
    if first is None or second is None:
        return first is second
    return np.array_equal(first, second, equal_nan=first.dtype.kind == "f")


def _is_of_result(evaluation: Mapping[str, Any], run: Run, weights: str | None) -> bool:
    unchanged = evaluation.get("split") == "test" and not evaluation.get("changed") and evaluation.get("predictions")
    return bool(unchanged) and is_of_weights(evaluation, weights, run.record.get("best_epoch"))


def _scores(run: Run, evaluation: dict[str, Any], metric: str) -> Scores:
    """Read the predictions of an evaluation.

    Raises:
        UserError: the file is not the one that the evaluation wrote, or does not give its metric.
    """
    path = _found(evaluation["predictions"], run.folder.path)
    columns = _archive(path) if path.suffix.lower() == ".npz" else _table(path)
    values, counts = _SCORES[metric](columns)
    rows, n = columns["rows"], len(columns["lengths"])
    sums, weights = np.bincount(rows, values, n), np.bincount(rows, counts, n)
    names = columns.get("names")
    data = data_checksum(evaluation["data"])
    scores = Scores(run.folder.path, data, names, columns["lengths"], rows, columns["targets"], sums, weights)
    measured = evaluation["result"][f"test/{metric}"]
    if not math.isclose(scores.mean, measured, rel_tol=_ROUNDING, abs_tol=1e-6):
        raise UserError(f"{path}: {metric} is {scores.mean:.6g}, expected {measured:.6g} as evaluated")
    return scores


def _found(kept: dict[str, str], trial: Path) -> Path:
    """Return the file of predictions, also where it was moved together with the trial."""
    path = Path(kept["file"])
    for candidate in (path, trial / path.name, trial / "evaluations" / path.name):
        if candidate.is_file() and checksum(candidate) == kept["sha256"]:
            return candidate
    raise UserError(f"{path} is not there any longer, or has changed")


def _archive(path: Path) -> dict[str, np.ndarray]:
    """Read a .npz file; values of several steps become a row each."""
    with np.load(path, allow_pickle=False) as arrays:
        steps = arrays.get("steps")
        lengths = arrays["length"]
        columns = {"lengths": lengths, "rows": np.repeat(np.arange(len(lengths)), 1 if steps is None else steps)}
        if "series" in arrays:
            columns["names"] = arrays["series"]
        for name, key in (("targets", "target"), ("predictions", "prediction"), ("probabilities", "probability")):
            if key in arrays:
                values = arrays[key]
                columns[name] = _narrow(values if steps is None else values[np.arange(values.shape[1]) < steps[:, None]])
    return columns


def _table(path: Path) -> dict[str, np.ndarray]:
    """Read a .csv file, as :func:`_archive` does."""
    with open(path, encoding="utf-8", newline="") as file:
        lines = csv.reader(file)
        header = next(lines)
        cells = list(zip(*lines, strict=True))
    rows = np.array(cells[header.index("row")], dtype=np.int64)
    firsts = np.unique(rows, return_index=True)[1]
    columns = {"rows": rows, "lengths": np.array(cells[header.index("length")], dtype=np.int64)[firsts]}
    if "series" in header:
        columns["names"] = np.array(cells[header.index("series")])[firsts]
    for name, key in (("targets", "target"), ("predictions", "prediction"), ("probabilities", "probability")):
        places = [place for place, column in enumerate(header) if re.fullmatch(rf"{key}(_\d+)?", column)]
        if places:
            columns[name] = _narrow(np.array([cells[place] for place in places], dtype=np.float64).T)
    return columns


def _narrow(values: np.ndarray) -> np.ndarray:
    """Return values (N, 1) as (N,)."""
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def _correct(columns: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    counted = columns["targets"] != IGNORE_INDEX
    return (columns["predictions"] == columns["targets"]) & counted, counted


def _bits(columns: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    counted = columns["targets"] != IGNORE_INDEX
    probabilities = np.where(counted, columns["probabilities"], 1.0).astype(np.float64)
    if not probabilities.all():
        raise UserError("a target has a probability of 0 in float32, so that its bits are not known")
    return -np.log2(probabilities), counted


def _squared(columns: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    targets, predictions = (columns[name].astype(np.float64) for name in ("targets", "predictions"))
    counted = ~np.isnan(targets)
    errors = np.where(counted, predictions - targets, 0.0) ** 2
    several = tuple(range(1, errors.ndim))
    return errors.sum(axis=several), counted.sum(axis=several)


_SCORES: dict[str, Callable[[dict[str, np.ndarray]], tuple[np.ndarray, np.ndarray]]] = {
    "accuracy": _correct,
    "bpc": _bits,
    "mse": _squared,
}
"""Metrics that are means over values: what is added up for each target, and how many values that is."""
