"""Tables for people: in the terminal, as Markdown and as CSV."""

from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from seqmem.files import write_text


def show_table(summary: pd.DataFrame, console: Console | None = None) -> None:
    """Print a summary (see :func:`seqmem.results.aggregate.summarize`)."""
    cells = _cells(summary)
    table = Table(title="mean +/- standard deviation over n trials")
    for name in cells.columns:
        table.add_column(name, justify="left" if name in ("data set", "model") else "right", overflow="fold")
    for _, row in cells.iterrows():
        table.add_row(*row)
    (console or Console(width=None if Console().is_terminal else 140)).print(table)


def save_table(summary: pd.DataFrame, folder: Path) -> None:
    """Write ``table.md`` (as shown) and ``table.csv`` (all columns, full precision) into ``folder``."""
    write_text(folder / "table.md", markdown(summary))
    write_text(folder / "table.csv", summary.to_csv(index=False))


def markdown(summary: pd.DataFrame) -> str:
    """The summary as a Markdown table."""
    cells = _cells(summary)
    lines = [list(cells.columns), ["---" if name in ("data set", "model") else "---:" for name in cells.columns]]
    lines += [list(row) for _, row in cells.iterrows()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cells(summary: pd.DataFrame) -> pd.DataFrame:
    metrics = [metric for metric in summary["metric"].unique() if metric]
    name = metrics[0] if len(metrics) == 1 else "metric"
    floor = {f"irreducible {name}": _numbers(summary, "irreducible_error", "{:.4f}")} if "irreducible_error" in summary else {}
    columns = {
        "data set": summary["dataset"],
        "model": summary["model"],
        "n": summary["n"].astype(str),
        f"test {name}": [_spread(row, "test") for _, row in summary.iterrows()],
        **floor,
        f"validation {name}": [_spread(row, "val") for _, row in summary.iterrows()],
        "best epoch": _numbers(summary, "best_epoch", "{:.1f}"),
        "parameters": _numbers(summary, "parameters", "{:,.0f}"),
        "seconds": _numbers(summary, "seconds", "{:.1f}"),
        "sequences/s": _numbers(summary, "sequences_per_second", "{:,.0f}"),
    }
    if "last_mean" in summary:
        columns[f"test {name}, last epoch"] = [_spread(row, "last") for _, row in summary.iterrows()]
    if len(metrics) > 1:
        columns = {"metric": summary["metric"], **columns}
    if summary["unfinished"].any():
        columns["not finished"] = summary["unfinished"].astype(str)
    return pd.DataFrame(columns)


def _numbers(summary: pd.DataFrame, column: str, form: str) -> list[str]:
    if column not in summary:
        return ["-"] * len(summary)
    return ["-" if pd.isna(value) else form.format(value) for value in summary[column]]


def _spread(row: pd.Series, split: str) -> str:
    mean, deviation = row.get(f"{split}_mean"), row.get(f"{split}_std")
    if mean is None or pd.isna(mean):
        return "-"
    return f"{mean:.4f}" if pd.isna(deviation) else f"{mean:.4f} +/- {deviation:.4f}"
