"""Run records on disk, aggregation over trials, tables and pictures."""

from pathlib import Path

import pandas as pd

from seqmem.results.aggregate import group_trials, summarize
from seqmem.results.curves import read_curves
from seqmem.results.plots import plot_learning_curves, save_figure
from seqmem.results.reading import find_runs, read_run
from seqmem.results.table import save_table, show_table

__all__ = ["find_runs", "group_trials", "plot_learning_curves", "read_run", "report", "save_table", "show_table", "summarize"]


def report(folder: Path) -> pd.DataFrame:
    """Print the table of the trials that :func:`find_runs` finds; save it in ``folder`` with the learning curves.

    Writes ``table.md``, ``table.csv`` and, if any run was trained, ``curves.png``. Names each trial that did not finish, and
    why. Returns the table.
    """
    groups = group_trials(find_runs(folder))
    summary = summarize(groups)
    save_table(summary, folder)
    curves, _ = read_curves(groups)
    figure = plot_learning_curves(groups, curves)
    if figure:
        save_figure(figure, folder / "curves.png")
    show_table(summary)
    for run in (run for group in groups for run in group.unfinished):
        print(f"{run.status}: {run.folder.path}: {run.reason}")
    print(f"table.md, table.csv{', curves.png' * (figure is not None)} and the run records are in {folder}")
    return summary
