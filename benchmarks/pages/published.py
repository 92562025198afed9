"""Published values, from ``benchmarks/results/published.csv``."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml

from benchmarks.pages.blocks import table
from benchmarks.pages.files import link, read
from seqmem.cli import choices
from seqmem.results.paper_names import is_model, is_task
from seqmem.results.published import in_our_unit
from seqmem.results.record import settings


def published(paper: str) -> str:
    """Return the table of the values that a paper publishes; ``paper`` is its name before the number in brackets."""
    rows = _rows(paper)
    lines = [[row["task"], row["model"], row["metric"], row["value"], row["table"], _source(row["source"])] for row in rows]
    shown = table(["task", "model", "metric", "value", "table", "source"], lines, numbers=0)
    return f"{shown}\n\nPaper: {rows[0]['paper']}. File: {link('published.csv')}."


def value(paper: str, table: str, trial: Mapping[str, str]) -> str:
    """Return the published number of a trial's task and model as this project counts it; empty if there is none.

    A percentage becomes a fraction. Of several metrics the first of the file counts.

    Args:
        paper: its name before the number in brackets.
        table: as in the file.
        trial: with the columns experiment and model.
    """
    row = _row(paper, table, trial)
    return "" if row is None else f"{in_our_unit(row['metric'], float(row['value'])):.6g}"


def model(paper: str, table: str, trial: Mapping[str, str]) -> str:
    """Return the name that a paper's table gives a trial's model; empty if it has no value of it."""
    row = _row(paper, table, trial)
    return "" if row is None else row["model"]


def _row(paper: str, table: str, trial: Mapping[str, str]) -> dict[str, str] | None:
    dataset, known = _experiment(trial["experiment"])
    for row in _rows(paper):
        names = paper, table
        if (
            row["table"] == table
            and is_task(*names, row["task"], dataset, known)
            and is_model(*names, row["model"], trial["model"], known)
        ):
            return row
    return None


@cache
def _experiment(name: str) -> tuple[str, dict[str, Any]]:
    """Return the data set of an experiment, and the settings in its file."""
    path = choices.file("experiment", name)
    assert path, f"cfg/experiment/{name}.yaml does not exist"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    chosen = {group: choice for each in config.pop("defaults") for group, choice in each.items()}
    return chosen["override /dataset"], settings(config)


def _rows(paper: str) -> list[dict[str, str]]:
    return [row for row in read("published.csv") if row["paper"].startswith(f"{paper} (")]


def _source(text: str) -> str:
    return "not verified here" if text == "unverified" else text
