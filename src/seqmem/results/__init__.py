"""Run records on disk, aggregation over trials, tables and pictures."""

from pathlib import Path

import pandas as pd

from seqmem.results.aggregate import find_runs, group_trials, summarize
from seqmem.results.plots import plot_learning_curves
from seqmem.results.table import save_table, show_table

__all__ = ["find_runs", "group_trials", "plot_learning_curves", "report", "save_table", "show_table", "summarize"]


def report(folder: Path) -> pd.DataFrame:
    """Print the table of all runs below ``folder``; save it there with the learning curves.

    Writes ``table.md``, ``table.csv`` and, if any run was trained, ``curves.png``. Returns the table.
    """
    groups = group_trials(find_runs(folder))
    summary = summarize(groups)
    save_table(summary, folder)
    drawn = plot_learning_curves(groups, folder / "curves.png")
    show_table(summary)
    print(f"table.md, table.csv{', curves.png' * drawn} and the run records are in {folder}")
    return summary
