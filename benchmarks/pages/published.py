"""Published values, from ``benchmarks/results/published.csv``."""

from benchmarks.pages.blocks import table
from benchmarks.pages.files import link, read


def published(paper: str) -> str:
    """Return the table of the values that a paper publishes; ``paper`` is its name before the number in brackets."""
    rows = [row for row in read("published.csv") if row["paper"].startswith(f"{paper} (")]
    lines = [[row["task"], row["model"], row["metric"], row["value"], row["table"], _source(row["source"])] for row in rows]
    shown = table(["task", "model", "metric", "value", "table", "source"], lines, numbers=0)
    return f"{shown}\n\nPaper: {rows[0]['paper']}. File: {link('published.csv')}."


def _source(text: str) -> str:
    return "not verified here" if text == "unverified" else text
