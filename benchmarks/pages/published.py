"""Published values, from ``benchmarks/results/published.csv``."""

from collections.abc import Sequence

from benchmarks.pages.blocks import table
from benchmarks.pages.trials import read


def published(paper: str, tables: Sequence[str] = ()) -> str:
    """Return a table of the values that a paper publishes.

    Args:
        paper: the beginning of its name.
        tables: of the paper; empty for all.
    """
    rows = [row for row in read("published.csv") if row["paper"].startswith(f"{paper} (")]
    chosen = [row for row in rows if not tables or row["table"] in tables]
    lines = [[row["task"], row["model"], row["metric"], row["value"], row["table"], _source(row["source"])] for row in chosen]
    link = "[benchmarks/results/published.csv](../../benchmarks/results/published.csv)"
    shown = table(["task", "model", "metric", "value", "table", "source"], lines, numbers=0)
    return f"{shown}\n\nPaper: {rows[0]['paper']}. File: {link}."


def _source(text: str) -> str:
    return "not verified here" if text == "unverified" else text
