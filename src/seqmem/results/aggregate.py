"""Aggregation of the trials of equal config, code, data and backend: mean, standard deviation and count."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import stdev
from typing import TYPE_CHECKING, Any

import yaml

from seqmem.results.intervals import mean_interval
from seqmem.results.labels import SMOKE, Subject, label
from seqmem.results.reading import Run
from seqmem.results.record import settings

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "dataset",
    "model",
    "n",
    "unfinished",
    "states",
    "metric",
    "test_mean",
    "test_std",
    "test_low",
    "test_high",
    "val_mean",
    "val_std",
    "val_low",
    "val_high",
    "last_mean",
    "last_std",
    "last_low",
    "last_high",
    "irreducible_error",
    "best_epoch",
    "parameters",
    "seconds",
    "sequences_per_second",
    "peak_memory_mib",
    "backend",
    "machine",
    "timed",
    "test_not_finite",
    "val_not_finite",
    "last_not_finite",
)


@dataclass(frozen=True)
class Trials:
    """The trials of one config, one version of the code, the same data and the same backend.

    Attributes:
        dataset: name of the data set, with the settings in brackets that distinguish it from others of that name in the table.
        model: name of the model, with such settings of its own in brackets; smoke tests are marked.
        metric: the metric to compare; empty if no trial on these data has recorded it.
        best: "max" or "min", the better end of the metric.
        settings: the flat config; None if it could not be read.
        runs: all trials.
        note: the file that could not be read in addition to a record, and why; empty if all could.
        backend: device kind and path of the operators, such as ``cpu compiled``; empty if they are not known.
    """

    dataset: str
    model: str
    metric: str
    best: str
    settings: dict[str, Any] | None
    runs: list[Run]
    note: str
    backend: str = ""

    @property
    def finished(self) -> list[Run]:
        """The trials with a result."""
        return [run for run in self.runs if run.finished]

    @property
    def unfinished(self) -> list[Run]:
        """The trials without a result; those that were found twice have theirs in a different folder."""
        return [run for run in self.runs if not run.finished and run.status != "repeated"]

    @property
    def states(self) -> str:
        """States of the trials without a result: ``1 failed, 2 missing``; empty if there are none."""
        counts = Counter(run.status for run in self.unfinished)
        return ", ".join(f"{count} {status}" for status, count in counts.items())

    @property
    def timed(self) -> list[Run]:
        """The finished trials of the machine that most of them ran on: times of different machines are not averaged.

        Those that resumed on a different machine, or of an unknown one where others are known, do not count.
        """
        alone = [run for run in self.finished if not run.record.get("earlier_machines")]
        machines = Counter(run.machine for run in alone if run.machine) or Counter(run.machine for run in alone)
        return [run for run in alone if run.machine == machines.most_common(1)[0][0]]

    @property
    def smoke_test(self) -> bool:
        """Whether they are smoke tests, whose numbers are not results."""
        return any(run.record.get("smoke_test") is True for run in self.runs)

    def results(self, split: str) -> list[float]:
        """Return the metric of each finished trial on a split, "test" or "val"."""
        return [run.record["result"][f"{split}/{self.metric}"] for run in self.finished]


def group_trials(runs: Iterable[Run]) -> list[Trials]:
    """Group trials of equal config, code, data and backend, ordered by data set and first appearance."""
    members: dict[tuple[str, str, str, str, str, str], list[Run]] = {}
    for run in _completed(list(runs)):
        key = (run.record["dataset"], run.record["model"], run.record["group"], run.version, run.data, run.backend)
        members.setdefault(key, []).append(run)
    groups = [sorted(group, key=lambda run: (run.record["seed"] is None, run.record["seed"])) for group in members.values()]
    read = [_settings(group) for group in groups]
    subjects = [
        Subject(dataset, _marked(model, group), config, _overrides(group), version, digest, data, backend)
        for (dataset, model, digest, version, data, backend), group, (config, _) in zip(members, groups, read, strict=True)
    ]
    labels = label(subjects)
    metrics = {dataset: metric for (dataset, _), group in zip(labels, groups, strict=True) for metric in _metrics(group)}
    found = []
    for (dataset, model), group, (config, note) in zip(labels, groups, read, strict=True):
        metric, best = next(iter(_metrics(group)), None) or metrics.get(dataset, ("", "max"))
        found.append(Trials(dataset, model, metric, best, config, group, note, group[0].backend))
    places = {dataset: place for place, dataset in enumerate(dict.fromkeys(dataset for dataset, _ in labels))}
    return sorted(found, key=lambda group: places[group.dataset])


def best_by_validation(groups: Iterable[Trials]) -> list[Trials]:
    """Return the row of each data set whose mean validation metric is the best.

    Rows without a finite mean do not count, nor do those of which a trial failed, or was pruned by a search.
    """
    best: dict[str, tuple[float, Trials]] = {}
    for group in groups:
        mean, _ = mean_and_deviation(group.results("val"))
        value = mean if group.best == "max" else -mean
        whole = not any(run.status in ("failed", "pruned") for run in group.runs)
        if math.isfinite(value) and whole and (group.dataset not in best or value > best[group.dataset][0]):
            best[group.dataset] = value, group
    return [group for _, group in best.values()]


def _marked(model: str, group: Sequence[Run]) -> str:
    return f"{model} ({SMOKE})" if any(run.record.get("smoke_test") is True for run in group) else model


def _overrides(group: Sequence[Run]) -> list[str]:
    return group[0].record.get("overrides") or []


def _completed(runs: list[Run]) -> list[Run]:
    """Give a trial without a checksum of its data, or without its backend, that of the other trials in its folder."""
    for key in ("data", "backend"):
        known = {run.folder.path.parent: getattr(run, key) for run in runs if getattr(run, key)}
        runs = [
            run if getattr(run, key) else replace(run, record={**run.record, key: known.get(run.folder.path.parent)})
            for run in runs
        ]
    return runs


def summarize(trials: Iterable[Trials]) -> "pd.DataFrame":
    """Return one row for each group of trials.

    Columns: dataset, model, n (finished trials), unfinished (number), states (of the unfinished: "1 failed, 2 missing"),
    metric, test_mean, test_std (sample standard deviation, missing for one trial), test_low, test_high (95 % interval of the
    mean, missing for fewer than three trials), the same of val and of last (test after the last epoch, if ``train.test_last``),
    irreducible_error (if known), best_epoch (mean, from 1), parameters, seconds (mean of one trial), sequences_per_second
    (mean), peak_memory_mib (largest), backend (device kind, path of the operators, precision and torch.compile), machine, timed
    (the finished trials on that machine; seconds, throughput and memory are of these alone), test_not_finite (number of
    finished trials whose metric is not finite, so that the mean is not, either), the same of val and of last.
    """
    import pandas as pd

    return pd.DataFrame([_row(group) for group in trials], columns=list(COLUMNS))


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation; NaN for too few values, or if a value is not finite."""
    if not values:
        return math.nan, math.nan
    finite = all(map(math.isfinite, values))
    return sum(values) / len(values), stdev(values) if finite and len(values) > 1 else math.nan


def _metrics(group: Iterable[Run]) -> Iterable[tuple[str, str]]:
    return ((run.record["metric"], run.record.get("best", "max")) for run in group if run.finished)


def _settings(group: Sequence[Run]) -> tuple[dict[str, Any] | None, str]:
    """The settings of a group from the first config that can be read, and the reason if none can."""
    problem = ""
    for run in group:
        if not run.record["group"]:
            continue
        try:
            return settings(run.folder.read_config()), ""
        except FileNotFoundError:
            problem = problem or ("" if run.status == "missing" else "there is no config.yaml")
        except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
            problem = f"config.yaml cannot be read ({' '.join(str(error).split())})"
    return None, problem


def _row(group: Trials) -> dict[str, Any]:
    row: dict[str, Any] = {
        "dataset": group.dataset,
        "model": group.model,
        "n": len(group.finished),
        "unfinished": len(group.unfinished),
        "states": group.states,
        "metric": group.metric,
        "backend": _backend(group),
    }
    if not group.finished:
        return row
    records = [run.record for run in group.finished]
    timed = [run.record for run in group.timed]
    last = [record.get("result_last") or {} for record in records]
    measured = {split: group.results(split) for split in ("test", "val")} | {"last": _numbers(last, f"test/{group.metric}")}
    for split, values in measured.items():
        row[f"{split}_mean"], row[f"{split}_std"] = mean_and_deviation(values)
        row[f"{split}_low"], row[f"{split}_high"] = mean_interval(values)
        row[f"{split}_not_finite"] = sum(not math.isfinite(value) for value in values)
    return row | {
        "irreducible_error": _first(records, "irreducible_error"),
        "best_epoch": _mean(records, "best_epoch") + 1,
        "parameters": _first(records, "parameters"),
        "seconds": _mean(timed, "seconds"),
        "sequences_per_second": _mean(timed, "sequences_per_second"),
        "peak_memory_mib": max(_numbers(timed, "peak_memory_mib"), default=math.nan),
        "machine": (group.timed or group.finished)[0].machine,
        "timed": len(timed),
    }


def _backend(group: Trials) -> str:
    """What the rounding of a group's trials depends on, as the table shows it."""
    settings = group.settings or {}
    precision, compiled = settings.get("train.precision"), settings.get("train.compile")
    words = [*group.backend.split(), *([str(precision)] if precision else []), *(["torch.compile"] if compiled else [])]
    return ", ".join(words)


def _numbers(records: Iterable[dict[str, Any]], key: str) -> list[float]:
    return [record[key] for record in records if isinstance(record.get(key), int | float)]


def _first(records: Iterable[dict[str, Any]], key: str) -> float:
    return next(iter(_numbers(records, key)), math.nan)


def _mean(records: Iterable[dict[str, Any]], key: str) -> float:
    return mean_and_deviation(_numbers(records, key))[0]
