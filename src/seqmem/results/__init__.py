"""Run records on disk, aggregation over trials, tables and pictures."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from seqmem.results.aggregate import find_runs, group_trials, summarize
from seqmem.results.experiment import Experiment
from seqmem.results.plots import plot_learning_curves
from seqmem.results.record import RunFolder
from seqmem.results.sweep import Sweep
from seqmem.results.table import save_table, show_table

__all__ = [
    "Experiment",
    "RunFolder",
    "Sweep",
    "find_runs",
    "group_trials",
    "plot_learning_curves",
    "report",
    "save_table",
    "show_table",
    "summarize",
]


def report(folder: Path, runs: Sequence[RunFolder] | None = None) -> pd.DataFrame:
    """Print the table of runs; save it in ``folder`` with the learning curves.

    Writes ``table.md``, ``table.csv`` and, if any run was trained, ``curves.png``. Returns the table.

    Args:
        folder: of a sweep, or one with run folders below it.
        runs: the run folders; None for all of ``folder``.
    """
    groups = group_trials(find_runs(folder) if runs is None else runs)
    summary = summarize(groups)
    save_table(summary, folder)
    drawn = plot_learning_curves(groups, folder / "curves.png")
    show_table(summary)
    print(f"table.md, table.csv{', curves.png' * drawn} are in {folder}")
    return summary
