"""Comparison with published values.

A file of published values is a CSV with the columns task, model, metric and value; paper, table and source are optional. A
value is compared with each row of ours that has

- its task: a name in ``paper_names.TASKS``, for data sets with the settings given there; else the name of a data set;
- its model: a name in ``paper_names.MODELS``, for models with the settings given there; else the name of a model. With a paper
  and a table, the names in ``paper_names.TASKS_OF`` and ``MODELS_OF`` come first;
- its metric: "test accuracy (%)", or any other text with "%", is a hundred times ``test/accuracy``, "validation ..." is the
  validation metric, and without either word it is the test metric.

Case, blanks and punctuation of names are ignored.
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
from seqmem.results.paper_names import METRICS, is_model, is_task, plain
from seqmem.results.table import number, spread_of

_WHOLE = {
    "smoke_test": False,
    "dataset.train_samples": None,
    "dataset.characters": None,
    "train.limit_train_batches": 1.0,
    "train.limit_val_batches": 1.0,
    "train.limit_test_batches": 1.0,
}
"""Settings of a run on all data; as a limit of batches, 1 is a single batch and 1.0 all of them."""


@dataclass(frozen=True)
class Published:
    """A row of the file.

    Attributes:
        paper, table, task, model, metric, source: as in the file; empty if missing.
        value: value in the unit of our metric.
        split: "test" or "val".
        name: name of our metric; empty if we have none.
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
    """A published value with a row of ours, or the reason why there is none.

    Attributes:
        published: the value.
        row: index of our row; None if there is none.
        mean, deviation, n: mean, sample standard deviation and number of our trials.
        note: the reason why there is no row, or the settings that reduce the data of ours.
    """

    published: Published
    row: int | None = None
    mean: float = math.nan
    deviation: float = math.nan
    n: int = 0
    note: str = ""

    @property
    def difference(self) -> float:
        """Our mean minus the published value."""
        return self.mean - self.published.value


def read_published(path: Path) -> list[Published]:
    """Read a file of published values.

    Raises:
        UserError: the file cannot be read, misses a column, or has a value that is not a number, or is an accuracy below 0 or
            above 1.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            header = reader.fieldnames or []
            missing = [name for name in ("task", "model", "metric", "value") if name not in header]
            if missing:
                raise UserError(f"{path}: there is no column '{missing[0]}'{suggestion(missing[0], header)}")
            return [_published(line, f"{path}, line {reader.line_num}") for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path} ({error})") from None


def compare(published: Sequence[Published], groups: Sequence[Trials]) -> list[Comparison]:
    """Compare each published value with every matching row of ours; values without a matching row come last."""
    found = [comparison for value in published for comparison in _comparisons(value, groups)]
    return sorted(found, key=lambda comparison: comparison.row is None)


def with_published(summary: pd.DataFrame, comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Add the columns published_test and test_difference, published_val and val_difference to a summary, if not empty.

    Of several values for one number the first of the file is taken.
    """
    added = summary.copy()
    for split in ("test", "val"):
        found = {each.row: each for each in reversed(comparisons) if each.row is not None and each.published.split == split}
        if found:
            rows = [found.get(k) for k in range(len(summary))]
            added[f"published_{split}"] = [each.published.value if each else math.nan for each in rows]
            added[f"{split}_difference"] = [each.difference if each else math.nan for each in rows]
    return added


def in_our_unit(metric: str, value: float) -> float:
    """Return a published value in the unit of our metric: a percentage, which the name of its metric says, as a fraction."""
    return value / 100 if "%" in metric else value


def columns(comparisons: Sequence[Comparison], groups: Sequence[Trials]) -> Columns:
    """Return the comparisons as a table of strings."""
    ours = [None if each.row is None else groups[each.row] for each in comparisons]
    return {
        "paper": [f"{each.published.paper} {each.published.table}".strip() for each in comparisons],
        "task": [each.published.task for each in comparisons],
        "published model": [each.published.model for each in comparisons],
        "published metric": [_without_percent(each.published.metric) for each in comparisons],
        "published": [number(each.published.value) for each in comparisons],
        "ours": [
            "-" if group is None else spread_of(group.results(each.published.split))
            for each, group in zip(comparisons, ours, strict=True)
        ],
        "n": [str(each.n) for each in comparisons],
        "difference": [number(each.difference, "+") for each in comparisons],
        "data set": [group.dataset if group else "-" for group in ours],
        "model": [group.model if group else "-" for group in ours],
        "source": [each.published.source for each in comparisons],
        "note": [each.note for each in comparisons],
    }


def _published(line: Mapping[str, str], place: str) -> Published:
    texts = {key: (line.get(key) or "").strip() for key in ("paper", "table", "task", "model", "metric", "source")}
    try:
        value = float(line["value"])
    except (TypeError, ValueError):
        raise UserError(f"{place}: value: got '{line['value']}', expected a number") from None
    found = re.fullmatch(r"(?:(test|validation)\s+)?(.*)", _without_percent(texts["metric"]), re.IGNORECASE | re.DOTALL)
    assert found is not None
    split, metric = found.groups()
    names = {plain(name): ours for paper, ours in METRICS.items() for name in (paper, ours)}
    name, value = names.get(plain(metric), ""), in_our_unit(texts["metric"], value)
    if name == "accuracy" and not 0 <= value <= 1:
        raise UserError(
            f"{place}: value: got {line['value']} of '{texts['metric']}', expected an accuracy from 0 to 1, or from 0 to 100 "
            f"of '{_without_percent(texts['metric'])} (%)'"
        )
    return Published(**texts, value=value, split="val" if (split or "").lower() == "validation" else "test", name=name)


def _without_percent(metric: str) -> str:
    return re.sub(r"\s*[(\[]?\s*%\s*[)\]]?", "", metric).strip()


def _comparisons(value: Published, groups: Sequence[Trials]) -> list[Comparison]:
    if not value.name:
        return [Comparison(value, note="runs do not record this metric")]
    names = value.paper, value.table
    on_task = [(k, group) for k, group in enumerate(groups) if is_task(*names, value.task, *_known(group, "dataset"))]
    of_model = [(k, group) for k, group in on_task if is_model(*names, value.model, *_known(group, "model"))]
    if not of_model:
        return [Comparison(value, note="no run of this model on this task" if on_task else "no run on this task")]
    found = [(k, group) for k, group in of_model if group.finished and group.metric == value.name]
    if not found:
        metrics = sorted({group.metric for _, group in of_model if group.finished})
        return [Comparison(value, note=f"runs record {', '.join(metrics)}" if metrics else "no run has finished")]
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


def _known(group: Trials, key: str) -> tuple[str, Mapping[str, Any]]:
    """Return the name of a row's data set or model, and the row's settings."""
    return group.runs[0].record[key], group.settings or {}


def _reduced(group: Trials) -> list[str]:
    settings = group.settings or {}
    return [key for key, whole in _WHOLE.items() if key in settings and repr(settings[key]) != repr(whole)]
