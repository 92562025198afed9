"""Published values beside ours.

A file of published values is a CSV with the columns task, model, metric and value; paper, table and source are shown if there.
A value stands beside each row of ours

- on its task: a name in ``paper_names.TASKS``, for data sets with the settings given there; else the name of a data set;
- of its model: a name in ``paper_names.MODELS``, likewise; else the name of a model;
- whose metric is its metric: "test accuracy (%)" is a hundred times ``test/accuracy``, "validation ..." is the validation
  metric, and what says neither is of the test.

Case, blanks and punctuation make no difference in names.
"""

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from seqmem.errors import UserError, suggestion
from seqmem.results.aggregate import Trials, mean_and_deviation
from seqmem.results.formats import Columns
from seqmem.results.paper_names import METRICS, MODELS, TASKS
from seqmem.results.table import number, spread

_WHOLE = {
    "smoke_test": False,
    "dataset.train_samples": None,
    "train.limit_train_batches": 1.0,
    "train.limit_test_batches": 1.0,
}
"""Settings with which nothing is left out; of batches, 1 would be a single one and 1.0 is all."""


@dataclass(frozen=True)
class Published:
    """A row of the file.

    Attributes:
        paper, table, task, model, metric, source: as they stand there; empty where they do not.
        value: in the unit of our metric.
        split: "test" or "val".
        name: of our metric; empty if it is none of ours.
    """

    paper: str
    table: str
    task: str
    model: str
    metric: str
    source: str
    value: float
    split: str
    name: str


@dataclass(frozen=True)
class Comparison:
    """A published value beside a row of ours, or why it stands alone.

    Attributes:
        published: the value.
        row: the index of our row; None if there is none.
        mean, deviation, n: of ours.
        note: why it stands alone, or which part of the data ours is of.
    """

    published: Published
    row: int | None = None
    mean: float = math.nan
    deviation: float = math.nan
    n: int = 0
    note: str = ""

    @property
    def difference(self) -> float:
        """Ours less the published one."""
        return self.mean - self.published.value


def read_published(path: Path) -> list[Published]:
    """Read a file of published values.

    Raises:
        UserError: it cannot be read, lacks a column, or has a value that is not a number.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            header = reader.fieldnames or []
            lacking = [name for name in ("task", "model", "metric", "value") if name not in header]
            if lacking:
                raise UserError(f"{path}: there is no column '{lacking[0]}'{suggestion(lacking[0], header)}")
            return [_published(line, f"{path}, line {reader.line_num}") for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path} ({error})") from None


def compare(published: Sequence[Published], groups: Sequence[Trials]) -> list[Comparison]:
    """Each published value beside every row of ours that it is about; those that no row is about stand alone, at the end."""
    found = [comparison for value in published for comparison in _beside(value, groups)]
    return sorted(found, key=lambda comparison: comparison.row is None)


def with_published(summary: pd.DataFrame, comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """A summary with columns published_test and test_difference, published_val and val_difference, where there are any.

    Of several values for one number the file's first is taken.
    """
    added = summary.copy()
    for split in ("test", "val"):
        found = {each.row: each for each in reversed(comparisons) if each.row is not None and each.published.split == split}
        if found:
            rows = [found.get(k) for k in range(len(summary))]
            added[f"published_{split}"] = [each.published.value if each else math.nan for each in rows]
            added[f"{split}_difference"] = [each.difference if each else math.nan for each in rows]
    return added


def columns(comparisons: Sequence[Comparison], groups: Sequence[Trials]) -> Columns:
    """The comparisons as a table of strings."""
    ours = [None if each.row is None else groups[each.row] for each in comparisons]
    return {
        "paper": [f"{each.published.paper} {each.published.table}".strip() for each in comparisons],
        "task": [each.published.task for each in comparisons],
        "published model": [each.published.model for each in comparisons],
        "published metric": [each.published.metric for each in comparisons],
        "published": [number(each.published.value) for each in comparisons],
        "ours": [spread(each.mean, each.deviation) for each in comparisons],
        "n": [str(each.n) for each in comparisons],
        "difference": [number(each.difference, "+") for each in comparisons],
        "data set": [group.dataset if group else "-" for group in ours],
        "model": [group.model if group else "-" for group in ours],
        "source": [each.published.source for each in comparisons],
        "note": [each.note for each in comparisons],
    }


def _published(line: Mapping[str, str], place: str) -> Published:
    told = {key: (line.get(key) or "").strip() for key in ("paper", "table", "task", "model", "metric", "source")}
    try:
        value = float(line["value"])
    except (TypeError, ValueError):
        raise UserError(f"{place}: value: got '{line['value']}', expected a number") from None
    found = re.fullmatch(r"(?:(test|validation) )?(.*?)( \(%\))?", told["metric"])
    assert found is not None
    split, metric, percent = found.groups()
    names = {_plain(name): ours for paper, ours in METRICS.items() for name in (paper, ours)}
    return Published(
        **told,
        value=value / 100 if percent else value,
        split="val" if split == "validation" else "test",
        name=names.get(_plain(metric), ""),
    )


def _beside(value: Published, groups: Sequence[Trials]) -> list[Comparison]:
    if not value.name:
        return [Comparison(value, note="runs do not record this metric")]
    tasks = {_plain(name): [meaning] for name, meaning in TASKS.items()}
    models = {_plain(name): meanings for name, meanings in MODELS.items()}
    on_task = [(k, group) for k, group in enumerate(groups) if _is(group, group.runs[0].record["dataset"], value.task, tasks)]
    of_model = [(k, group) for k, group in on_task if _is(group, group.runs[0].record["model"], value.model, models)]
    if not of_model:
        return [Comparison(value, note="no run of this model on this task" if on_task else "no run on this task")]
    found = [(k, group) for k, group in of_model if group.finished and group.metric == value.name]
    if not found:
        told = sorted({group.metric for _, group in of_model if group.finished})
        return [Comparison(value, note=f"runs record {', '.join(told)}" if told else "no run has finished")]
    return [
        Comparison(
            value,
            k,
            *mean_and_deviation(group.results(value.split)),
            len(group.finished),
            ", ".join(f"{key}={(group.settings or {})[key]}" for key in _reduced(group)),
        )
        for k, group in found
    ]


def _is(group: Trials, ours: str, theirs: str, known: Mapping[str, Sequence[tuple[str, Mapping[str, Any]]]]) -> bool:
    """Whether a paper's name of a task or model stands for the data set or model of ours."""
    settings = group.settings or {}
    return any(
        _plain(ours) == _plain(name) and all(key in settings and settings[key] == value for key, value in wanted.items())
        for name, wanted in known.get(_plain(theirs), [(theirs, {})])
    )


def _reduced(group: Trials) -> list[str]:
    settings = group.settings or {}
    return [key for key, whole in _WHOLE.items() if key in settings and repr(settings[key]) != repr(whole)]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
