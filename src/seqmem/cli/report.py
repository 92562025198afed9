"""``python -m seqmem.report``: make tables, pictures and one HTML page from the run records below a folder."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from seqmem.errors import UserError
from seqmem.io.files import make_folder, write_text
from seqmem.io.terminal import Parser
from seqmem.results import formats
from seqmem.results.aggregate import Trials, group_trials, summarize
from seqmem.results.curves import read_curves
from seqmem.results.labels import shortened
from seqmem.results.length_rows import LengthRow, LengthTable, length_lines, length_rows, length_tables
from seqmem.results.page import page
from seqmem.results.plots import plot_bars, plot_learning_curves, plot_length_rows, save_figure
from seqmem.results.published import columns, compare, read_published, with_published
from seqmem.results.reading import find_runs
from seqmem.results.selection import order, selected
from seqmem.results.table import print_table, show_table, smoke_note
from seqmem.results.trial_rows import trial_rows

PAGE = "report.html"
_not_in_papers = ("best epoch", "seconds", "sequences/s")

DESCRIPTION = """\
Report all trials below a folder, or those of a sweep if it holds the sweep's manifest (sweep.json).

  report.html          everything; opens without a server or network
  table.txt .md .tex   mean and sample standard deviation over the finished trials of equal config, code, data and backend,
                       and from three trials on the 95 % interval of the mean (Student's t);
                       table.tex has short labels and the columns of a paper, and is scaled down where it is wider than a page
  table.csv            the same, all columns in full precision
  trials.csv           every trial: seed, status and its reason, results, commit, data, backend, machine, date, folder
  curves.png bars.png  learning curves; test results with error bars and each trial as a point
  by_length.csv .md .tex .png
                       test results at other lengths, of trials that "seqmem evaluate TRIAL lengths=A,B,..." has evaluated:
                       a column for each length; a picture with a line for each row
  comparison.csv       with --against: published values next to ours

The backend is the device kind and the path of the operators. Where rows differ in it or in the machine, the table has a
column for it. Seconds and memory are those of the machine on which most trials of a row ran.

The table is printed, too. Trials without a result (failed, interrupted, pruned, still running, missing, unreadable) are listed
with the reason. Smoke tests are marked.

A FILE of published values has columns task, model, metric and value; columns paper, table and source are optional. Task and
model are names of a data set and a model as in table.md, or names that the papers use (seqmem.results.paper_names). A metric
is "test" or "validation" followed by accuracy, bpc, mse or nrmse, and "(%)" for percent.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    _parser().run(run, arguments)


def run(given: argparse.Namespace) -> None:
    """Write the report, as :func:`write` does."""
    columns = [name.strip() for name in given.columns.split(",")] if given.columns else []
    write(given.folder, given.out, given.against, given.sort, columns, given.lengths)


def write(
    source: Path,
    out: Path | None = None,
    against: Path | None = None,
    sort: str | None = None,
    names: Sequence[str] = (),
    lengths: Sequence[int] = (),
) -> list[Trials]:
    """Write the report, and print its table and its path.

    Args:
        source: the folder of a sweep, or one with run folders at any depth.
        out: the folder to write to; None for ``source``.
        against: a file of published values.
        sort: column of the rows' order, see :func:`seqmem.results.selection.order`; None keeps that of the trials.
        names: columns to print and of table.txt, .md and .tex; empty for the usual ones.
        lengths: lengths of the tables by length; empty for all that trials were evaluated at.

    Returns:
        The rows.

    Raises:
        UserError: there is nothing to report, no such column or length exists, or a file cannot be read or written.
    """
    published = read_published(against) if against else []
    runs = find_runs(source)
    if not runs:
        raise UserError(f"{source}: got no run record below it, expected folders with record.json")
    folder = make_folder(out or source)
    groups = group_trials(runs)
    if sort is not None:
        summary = with_published(summarize(groups), compare(published, groups))
        groups = [groups[row] for row in order(summary, groups, sort)]
    curves, problems = read_curves(groups)
    comparisons = compare(published, groups)
    summary = with_published(summarize(groups), comparisons)
    table = selected(summary, names)
    trials = list(trial_rows(groups, problems, folder))
    at_lengths = length_rows(groups, lengths)
    figures = {
        "curves": plot_learning_curves(groups, curves),
        "bars": plot_bars(groups),
        "by_length": plot_length_rows(at_lengths),
    }

    compared = columns(comparisons, groups) if comparisons else None
    if (folder / PAGE).exists():
        _remove_stale(folder, [name for name, figure in figures.items() if not figure], compared is None)
    _write_tables(folder, summary, table, compared, trials, all_columns=bool(names))
    for name, figure in figures.items():
        if figure:
            save_figure(figure, folder / f"{name}.png")
    tables = length_tables(at_lengths)
    _write_lengths(folder, at_lengths, tables)
    html = page(source.resolve().name, groups, summary, trials, curves, comparisons, figures, tables)
    write_text(folder / PAGE, html)
    unfinished = sum(len(group.unfinished) for group in groups)
    of_them = f", {unfinished} of them not finished" if unfinished else ""
    show_table(summary, columns=table)
    for each in tables:
        print_table(each.means, f"mean test {each.metric} on {each.dataset} by length")
    found, rows = _counted(len(runs), "trial"), _counted(len(groups), "row")
    print(f"{found}{of_them}, in {rows}: {folder / 'report.html'}")
    return groups


def _remove_stale(folder: Path, figures: Sequence[str], without_comparison: bool) -> None:
    """Remove what an earlier report of a folder wrote and this one does not: figures with their tables, and the comparison."""
    names = [f"{name}.png" for name in figures]
    if "by_length" in figures:
        names += [f"by_length.{suffix}" for suffix in ("csv", "md", "tex")]
    comparison = folder / "comparison.csv"
    if without_comparison and comparison.is_file():
        heading = formats.comma_separated(columns([], []))
        if comparison.read_text(encoding="utf-8", errors="replace").startswith(heading):  # not one of seqmem compare --csv
            names.append(comparison.name)
    for name in names:
        (folder / name).unlink(missing_ok=True)


def _write_tables(
    folder: Path,
    summary: pd.DataFrame,
    table: formats.Columns,
    compared: formats.Columns | None,
    trials: Sequence[Mapping[str, Any]],
    all_columns: bool,
) -> None:
    """Write the tables of all formats; trials without a result are listed below with the reason."""
    troubles = [f"{trial['status']}: {trial['folder']}: {trial['reason']}" for trial in trials if trial["reason"]]
    if note := smoke_note(summary):
        troubles.insert(0, note)
    tables = [table, *([] if compared is None else [compared])]
    in_markdown = [*map(formats.markdown, tables), *(f"- {formats.in_markdown(trouble)}" for trouble in troubles)]
    write_text(folder / "table.txt", "\n".join([*map(formats.text, tables), *troubles]) + "\n")
    write_text(folder / "table.md", "\n".join(in_markdown) + "\n")
    write_text(
        folder / "table.tex", formats.latex(_for_paper(table, all_columns)) + "".join(f"% {trouble}\n" for trouble in troubles)
    )
    write_text(folder / "table.csv", summary.to_csv(index=False))
    write_text(folder / "trials.csv", formats.comma_separated({key: [trial[key] for trial in trials] for key in trials[0]}))
    if compared is not None:
        write_text(folder / "comparison.csv", formats.comma_separated(compared))


def _write_lengths(folder: Path, rows: Sequence[LengthRow], tables: Sequence[LengthTable]) -> None:
    """Write the tables by length, if there are any."""
    if not rows:
        return
    titled = [(f"test {each.metric} on {each.dataset} by length", each.columns) for each in tables]
    markdown = "\n".join(f"{formats.in_markdown(title)}\n\n{formats.markdown(columns)}" for title, columns in titled)
    write_text(folder / "by_length.md", markdown)
    write_text(folder / "by_length.tex", "\n".join(f"% {title}\n{formats.latex(columns)}" for title, columns in titled))
    write_text(folder / "by_length.csv", formats.comma_separated(length_lines(rows)))


def _for_paper(table: formats.Columns, all_columns: bool) -> formats.Columns:
    """Return the columns of table.tex: short labels, and unless all are requested, none that depend on the machine."""
    chosen = {name: column for name, column in table.items() if all_columns or name not in _not_in_papers}
    return chosen | {name: shortened(column) for name, column in chosen.items() if name in ("data set", "model")}


def _parser() -> Parser:
    parser = Parser("python -m seqmem.report", DESCRIPTION)
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="the folder of a sweep, or one with run folders at any depth"
    )
    parser.add_argument("--against", type=Path, metavar="FILE", help="published values: .csv")
    parser.add_argument(
        "--sort",
        metavar="COLUMN",
        help="order of the rows in each data set, the best first: validation; --sort=-COLUMN reverses",
    )
    parser.add_argument(
        "--columns",
        metavar="A,B,...",
        help="columns to print and of table.txt, .md and .tex, by their headings or their names in table.csv",
    )
    parser.add_argument(
        "--lengths",
        type=_lengths,
        default=[],
        metavar="A,B,...",
        help="lengths of the tables by length (default: all that trials were evaluated at)",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="the folder to write to (default: FOLDER)")
    return parser


def _lengths(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text}, expected whole numbers separated by commas") from None


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
