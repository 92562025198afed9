"""Run records on disk, aggregation over trials, tables and figures.

The modules that a trial imports load pandas only to read or write a table, since imports delay the first training step.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from seqmem.results.aggregate import best_by_validation, group_trials, summarize
from seqmem.results.curves import read_curves
from seqmem.results.experiment import Experiment
from seqmem.results.plots import plot_learning_curves, save_figure
from seqmem.results.reading import find_runs, read_run
from seqmem.results.record import RunFolder
from seqmem.results.sweep import Sweep
from seqmem.results.table import save_table, show_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Experiment",
    "RunFolder",
    "Sweep",
    "best_by_validation",
    "find_runs",
    "group_trials",
    "plot_learning_curves",
    "read_run",
    "report",
    "save_table",
    "show_table",
    "summarize",
]


def report(folder: Path, trials: Sequence[RunFolder] | None = None) -> "pd.DataFrame":
    """Print the table of trials, and save it in a folder with the learning curves.

    Writes ``table.md``, ``table.csv`` and, if any run was trained, ``curves.png``. Prints each trial that did not finish with
    the reason.

    Args:
        folder: as for :func:`find_runs`.
        trials: the trials; None for those that :func:`find_runs` finds.

    Returns:
        The table, as :func:`summarize` returns it.
    """
    groups = group_trials(find_runs(folder) if trials is None else [read_run(trial) for trial in trials])
    summary = summarize(groups)
    save_table(summary, folder)
    curves, _ = read_curves(groups)
    figure = plot_learning_curves(groups, curves)
    if figure:
        save_figure(figure, folder / "curves.png")
    show_table(summary)
    for run in (run for group in groups for run in group.runs if not run.finished):
        print(f"{run.status}: {run.folder.path}: {run.reason}")
    print(f"table.md, table.csv{', curves.png' * (figure is not None)} are in {folder}")
    return summary
