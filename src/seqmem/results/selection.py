"""Order of a table's rows and choice of its columns, by their headings or by their names in table.csv."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from seqmem.errors import UserError, meant, suggestion
from seqmem.results.aggregate import Trials
from seqmem.results.formats import Columns
from seqmem.results.table import INTERVAL, cells, number

if TYPE_CHECKING:
    import pandas as pd

_of_heading = {
    "data set": "dataset",
    "not finished": "unfinished",
    "test": "test_mean",
    INTERVAL: "test_low",
    "test, last epoch": "last_mean",
    "last epoch": "last_mean",
    "validation": "val_mean",
    "irreducible": "irreducible_error",
    "best epoch": "best_epoch",
    "sequences/s": "sequences_per_second",
    "published validation": "published_val",
    "validation difference": "val_difference",
}
"""Columns of a summary whose headings are different words; metrics are left out."""
_measured = (
    *(f"{split}_{end}" for split in ("test", "val", "last") for end in ("mean", "low", "high")),
    *("published_test", "test_difference", "published_val", "val_difference"),
)
_large_first = ("n", "sequences_per_second")
_counts = ("n", "unfinished", "timed", "parameters")


def order(summary: "pd.DataFrame", groups: Sequence[Trials], key: str) -> list[int]:
    """Return the rows' indices in the order of a column, within each data set.

    The best value comes first: of a metric as its task says, of n and sequences/s the largest, of others the smallest. Rows
    without a value come last.

    Args:
        summary: of :func:`seqmem.results.aggregate.summarize`, with published values if they can be the key.
        groups: its rows.
        key: name of the column; "-" before it reverses the order.

    Raises:
        UserError: there is no such column.
    """
    name = key.removeprefix("-")
    column = _column(name, summary)
    if column is None:
        raise UserError(f"--sort: got {name}, expected a column{_suggestion(name, summary)}")
    values = list(summary[column])
    words = any(isinstance(value, str) for value in values)

    def position(row: int) -> tuple[Any, ...]:
        value = values[row]
        if words:
            missing = not isinstance(value, str) or not value
            return missing != key.startswith("-"), "" if missing else value
        descends = groups[row].best == "max" if column in _measured else column in _large_first
        missing = value is None or math.isnan(value)
        return missing, 0 if missing else -value if descends != key.startswith("-") else value

    rows = sorted(range(len(values)), key=position, reverse=words and key.startswith("-"))
    datasets = list(dict.fromkeys(summary["dataset"]))
    return rows if column == "dataset" else sorted(rows, key=lambda row: datasets.index(summary["dataset"].iloc[row]))


def selected(summary: "pd.DataFrame", names: Sequence[str] = ()) -> Columns:
    """Return the cells of the named columns in this order; without names those of :func:`seqmem.results.table.cells`.

    Raises:
        UserError: there is no such column.
    """
    shown = cells(summary)
    if not names:
        return shown
    headings = {_plain(heading, summary): heading for heading in shown}
    chosen: dict[str, Sequence[str]] = {}
    for name in names:
        heading = headings.get(_plain(name, summary))
        column = _column(name, summary)
        if heading is not None:
            chosen[heading] = shown[heading]
        elif column is not None:
            chosen[name] = [_shown(value, column) for value in summary[column]]
        else:
            raise UserError(f"--columns: got {name}, expected a column{_suggestion(name, summary)}")
    return chosen


def _shown(value: Any, column: str) -> str:
    is_count = column in _counts and not math.isnan(value)
    return value if isinstance(value, str) else f"{value:,.0f}" if is_count else number(value)


def _column(name: str, summary: "pd.DataFrame") -> str | None:
    """Return the summary's column of a name."""
    plain = _plain(name, summary)
    found = _of_heading.get(plain, plain.replace(" ", "_"))
    return found if found in summary else None


def _plain(name: str, summary: "pd.DataFrame") -> str:
    """Return a heading without the name of the metric."""
    for metric in summary["metric"].unique():
        if metric and name != "metric":
            name = name.replace(f" {metric}", "")
    return name.strip().lower()


def _names(summary: "pd.DataFrame") -> list[str]:
    """Return the names to suggest: headings, and columns of table.csv; a heading with a comma cannot be in a list."""
    headings = [_plain(heading, summary) for heading in cells(summary) if "," not in heading]
    return list(dict.fromkeys(headings + list(summary.columns)))


def _suggestion(name: str, summary: "pd.DataFrame") -> str:
    """Return the end of an error line: the first column that begins with the name, or else the nearest one."""
    names = _names(summary)
    longer = [each for each in names if name and each.startswith(name.lower())]
    return meant(longer[:1]) if longer else suggestion(name, names)
