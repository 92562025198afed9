"""Summary table: on the terminal, and in files of four formats."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from seqmem.io.files import write_text
from seqmem.results import formats
from seqmem.results.aggregate import mean_and_deviation
from seqmem.results.formats import Columns
from seqmem.results.intervals import CONFIDENCE, FEWEST
from seqmem.results.labels import SMOKE, SMOKE_NOTE

if TYPE_CHECKING:
    import pandas as pd

INTERVAL = f"{CONFIDENCE * 100:.0f} % interval"
"""Heading of the intervals of the test's means."""
LEGEND = f"mean +/- sample standard deviation over n trials; {INTERVAL} of the mean, from {FEWEST} trials on"
SMALLEST_P = 1e-4
"""The smallest p value that is shown as a number."""
LEAST_WORDS = 7
"""Width that a column of words can be reduced to, so that numbers need not be."""


def show_table(summary: "pd.DataFrame", console: Console | None = None, columns: Columns | None = None) -> None:
    """Print a summary (see :func:`seqmem.results.aggregate.summarize`), or ``columns`` of it."""
    columns = cells(summary) if columns is None else columns
    title = LEGEND if INTERVAL in columns else LEGEND.partition(";")[0]
    print_table(columns, title, smoke_note(summary), console)


def print_table(columns: Columns, title: str, note: str = "", console: Console | None = None) -> None:
    """Print a table as wide as the terminal, or of 140 columns where there is none.

    Words are folded where the table is too wide; numbers and intervals only where that does not suffice.
    """
    console = console or Console(width=None if Console().is_terminal else 140)
    widths = {name: max(map(len, [*name.split(), *column])) for name, column in columns.items() if name not in formats.LEFT}
    words = len(columns) - len(widths)
    whole = console.width > sum(widths.values()) + LEAST_WORDS * words + 3 * len(columns)
    table = Table(title=title, caption=note or None)
    for name in columns:
        if name in widths:
            table.add_column(textwrap.fill(name, widths[name]), justify="right", overflow="fold", no_wrap=whole)
        else:
            table.add_column(name, overflow="fold")
    for row in formats.rows(columns):
        table.add_row(*row)
    console.print(table)


def save_table(summary: "pd.DataFrame", folder: Path) -> None:
    """Write ``table.md`` (rounded) and ``table.csv`` (all columns, full precision) to ``folder``."""
    note = smoke_note(summary)
    write_text(folder / "table.md", formats.markdown(cells(summary)) + (f"\n{note}\n" if note else ""))
    write_text(folder / "table.csv", summary.to_csv(index=False))


def smoke_note(summary: "pd.DataFrame") -> str:
    """Return what stands below a table that has smoke tests; empty for other tables."""
    return SMOKE_NOTE if any(f"({SMOKE}" in str(model) for model in summary["model"]) else ""


def cells(summary: "pd.DataFrame") -> Columns:
    """Return the rounded columns of a summary to show.

    Where rows have different metrics, backends or machines, a column names them.
    """
    metrics = [metric for metric in summary["metric"].unique() if metric]
    name = f" {metrics[0]}" if len(metrics) == 1 else ""
    columns = {
        "data set": list(summary["dataset"]),
        "model": list(summary["model"]),
        **({"metric": [metric or "-" for metric in summary["metric"]]} if len(metrics) > 1 else {}),
        "n": [str(count) for count in summary["n"]],
        **({"not finished": [state or "-" for state in summary["states"]]} if summary["unfinished"].any() else {}),
        f"test{name}": _spreads(summary, "test"),
        **_intervals(summary),
        **_published(summary, "test", "test"),
    }
    if summary["irreducible_error"].notna().any():
        columns[f"irreducible{name}"] = [number(value) for value in summary["irreducible_error"]]
    columns |= {
        f"validation{name}": _spreads(summary, "val"),
        **_published(summary, "val", "validation"),
        "best epoch": _rounded(summary["best_epoch"], ".1f"),
        "parameters": _rounded(summary["parameters"], ",.0f"),
        "seconds": _rounded(summary["seconds"], ".1f"),
        "sequences/s": _rounded(summary["sequences_per_second"], ",.0f"),
    }
    if summary["last_mean"].notna().any():
        columns[f"test{name}, last epoch"] = _spreads(summary, "last")
    return {**columns, **_computed_on(summary)}


def number(value: float, sign: str = "") -> str:
    """Format a value with four decimals, six digits if it is large, three if it is small; "-" for NaN."""
    if _is_missing(value):
        return "-"
    form = ".4f" if value == 0 or 1e-3 <= abs(value) < 1e4 else ".6g" if abs(value) >= 1e4 else ".2e"
    return f"{value:{sign}{form}}"


def p_value(p: float) -> str:
    """Format a p value with four decimals, a smaller one than these as "< 0.0001"; "-" for NaN."""
    return "-" if math.isnan(p) else f"< {SMALLEST_P:.4f}" if p < SMALLEST_P else f"{p:.4f}"


def p_equals(p: float) -> str:
    """Format a p value for a sentence: "p = 0.0312" or "p < 0.0001"."""
    shown = p_value(p)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def spread(mean: float, deviation: float) -> str:
    """Format a mean and its standard deviation, which is left out if it is NaN."""
    return number(mean) if math.isnan(deviation) else f"{number(mean)} +/- {number(deviation)}"


def spread_of(values: Sequence[float]) -> str:
    """Format mean and standard deviation of values; see :func:`not_finite` where that mean is not finite."""
    return not_finite(values) or spread(*mean_and_deviation(values))


def not_finite(values: Sequence[float]) -> str:
    """Return ``nan (1 of 3 not finite)`` in place of a mean of values that are not all finite; empty for other values."""
    return _not_finite(mean_and_deviation(values)[0], sum(not math.isfinite(value) for value in values), len(values))


def _not_finite(mean: float, count: float, n: int) -> str:
    return f"{mean:g} ({count:.0f} of {n} not finite)" if count > 0 else ""


def interval(low: float, high: float) -> str:
    """Format both ends of an interval; "-" if there is none."""
    return "-" if math.isnan(low) else f"{number(low)} to {number(high)}"


def _intervals(summary: "pd.DataFrame") -> Columns:
    """Return the column of the test's intervals, if a row has one."""
    if summary["test_low"].isna().all():
        return {}
    return {INTERVAL: [interval(*ends) for ends in zip(summary["test_low"], summary["test_high"], strict=True)]}


def _published(summary: "pd.DataFrame", split: str, name: str) -> Columns:
    if f"published_{split}" not in summary:
        return {}
    return {
        f"published {name}": [number(value) for value in summary[f"published_{split}"]],
        f"{name} difference": [number(value, "+") for value in summary[f"{split}_difference"]],
    }


def _computed_on(summary: "pd.DataFrame") -> Columns:
    """Return the columns backend and machine, each if rows differ in it; machine also if the trials of a row do."""
    backends, machines = (["" if _is_missing(each) else each for each in summary[name]] for name in ("backend", "machine"))
    counts = list(zip(summary["timed"], summary["n"], strict=True))
    columns: dict[str, list[str]] = {}
    if len({each for each in backends if each}) > 1:
        columns["backend"] = [each or "-" for each in backends]
    if len({each for each in machines if each}) > 1 or any(timed < n for timed, n in counts):
        columns["machine"] = [_machine(*each) for each in zip(machines, counts, strict=True)]
    return columns


def _machine(name: str, counts: tuple[float, int]) -> str:
    timed, n = counts
    return f"{name or 'unknown'} (seconds of {timed:.0f} of {n} trials)" if timed < n else name or "-"


def _rounded(values: Sequence[float], form: str) -> list[str]:
    return ["-" if _is_missing(value) else f"{value:{form}}" for value in values]


def _spreads(summary: "pd.DataFrame", split: str) -> list[str]:
    names = (f"{split}_mean", f"{split}_std", f"{split}_not_finite", "n")
    rows = zip(*(summary[name] for name in names), strict=True)
    return [_not_finite(mean, count, n) or spread(mean, deviation) for mean, deviation, count, n in rows]
