"""Published values, from ``benchmarks/results/published.csv``."""

from benchmarks.pages.blocks import table
from benchmarks.pages.files import link, read


def published(paper: str) -> str:
    """Return the table of the values that a paper publishes; ``paper`` is its name before the number in brackets."""
    rows = _rows(paper)
    lines = [[row["task"], row["model"], row["metric"], row["value"], row["table"], _source(row["source"])] for row in rows]
    shown = table(["task", "model", "metric", "value", "table", "source"], lines, numbers=0)
    return f"{shown}\n\nPaper: {rows[0]['paper']}. File: {link('published.csv')}."


def value(paper: str, task: str, model: str, metric: str | None = None) -> str:
    """Return a published number as this project counts it, a percentage as a fraction; empty if there is none.

    Args:
        paper: its name before the number in brackets.
        task: as in the file.
        model: as in the file.
        metric: as in the file; None for the first of the task and model.
    """
    for row in _rows(paper):
        if (row["task"], row["model"]) == (task, model) and metric in (None, row["metric"]):
            return f"{float(row['value']) / 100:.6g}" if "%" in row["metric"] else row["value"]
    return ""


def _rows(paper: str) -> list[dict[str, str]]:
    return [row for row in read("published.csv") if row["paper"].startswith(f"{paper} (")]


def _source(text: str) -> str:
    return "not verified here" if text == "unverified" else text
