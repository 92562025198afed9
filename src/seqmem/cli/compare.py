"""``seqmem compare``, or ``python -m seqmem.compare``: say whether one row of a report is better than another."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from seqmem.errors import UserError
from seqmem.io.terminal import Parser

DESCRIPTION = """\
Compare rows of a report: is A better than B?

Rows are named as seqmem report names them: a model, with its settings in brackets where several rows have it, or
"MODEL on DATASET". Without --rows, all rows are compared, pair by pair. Differences are the first row minus the second.

  paired t      mean difference over the seeds that both rows have, with its 95 % interval from three seeds on
  McNemar       exact test of the accuracies of two trained models on the same test sequences, of one answer each
  bootstrap     95 % interval of the mean difference (accuracy, bpc, mse) over the same test sequences; 9,999 resamples,
                fewer for more than 20,000 sequences, and at least 999
  Wilcoxon      signed-rank test of mean metrics over data sets, beside mean ranks, from five data sets on

Tests over sequences are for two rows, with predictions that their trials keep:
seqmem evaluate FOLDER predictions=predictions.npz. Where a table has several p values of one test, "p (Holm)" has them
after Holm's correction; intervals are each at 95 %. Seeds that did not finish in a row, or are missing in it, are listed.

Below the table stands what the numbers allow to say, and what was not computed and why.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    _parser().run(run, arguments)


def run(given: argparse.Namespace) -> None:
    """Compare, print, and write the files.

    Raises:
        UserError: an unknown row, rows that cannot be compared, or a file that cannot be read or written.
    """
    from seqmem.io.files import write_text
    from seqmem.results.aggregate import group_trials
    from seqmem.results.at_length import at_length
    from seqmem.results.chosen_rows import chosen
    from seqmem.results.comparison import compare_rows, frame, shown
    from seqmem.results.labels import SMOKE, SMOKE_NOTE
    from seqmem.results.plots import check_picture, save_figure
    from seqmem.results.rank_picture import plot_ranks
    from seqmem.results.reading import find_runs
    from seqmem.results.table import print_table

    if given.csv:
        _check_table(given.csv)
    if given.picture:
        check_picture(given.picture, "--picture")
    runs = find_runs(given.folder)
    if not runs:
        raise UserError(f"{given.folder}: got no run record below it, expected folders with record.json")
    models, rows = chosen(group_trials(runs), given.rows or ())
    if given.length is not None:
        rows = at_length(rows, given.length)
    found = compare_rows(models, rows, over_sequences=given.length is None)
    smoke = SMOKE_NOTE if any(SMOKE in model for model in models) else ""
    print_table(shown(found, models), _title(models, found.metrics), smoke)
    print(*found.sentences, *found.notes, sep="\n")
    if given.csv:
        write_text(given.csv, frame(found.lines).to_csv(index=False))
        print(f"table: {given.csv}")
    if given.picture and found.ranking:
        save_figure(plot_ranks(found.ranking), given.picture)
        print(f"picture: {given.picture}")
    elif given.picture:
        print("no picture: it would show mean ranks")


def _title(models: Sequence[str], metrics: Sequence[str]) -> str:
    from seqmem.results.labels import shortened

    rows = " minus ".join(shortened(models)) if len(models) == 2 else f"{len(models)} rows, first minus second"
    return f"test {', '.join(metrics)}: {rows}"


def _check_table(path: Path) -> None:
    if path.suffix.lower() != ".csv":
        raise UserError(f"--csv: got {path}, expected a name that ends in .csv")
    if not path.parent.is_dir():
        raise UserError(f"--csv: got {path}, but there is no folder {path.parent}")


def _parser() -> Parser:
    parser = Parser("python -m seqmem.compare", DESCRIPTION)
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="the folder of a sweep, or one with run folders at any depth"
    )
    parser.add_argument(
        "--rows", nargs="+", metavar="ROW", help="rows to compare, two or more, in quotes if they have blanks (default: all)"
    )
    parser.add_argument(
        "--length",
        type=int,
        metavar="L",
        help="compare test results at this length over seeds, from: seqmem evaluate FOLDER lengths=L,...",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table: all lines and columns in full precision")
    parser.add_argument(
        "--picture",
        type=Path,
        metavar="FILE",
        help="draw mean ranks, with bars between rows without a difference (.png, .svg, .pdf)",
    )
    return parser
