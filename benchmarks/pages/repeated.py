"""The table of trials that were trained again, from the file of :mod:`benchmarks.repeat`."""

from collections.abc import Mapping

from benchmarks.pages.blocks import table
from benchmarks.pages.files import link, processor, read

FILE = "repeated.csv"
HEADINGS = ("trial", "test", "test again", "validation", "validation again", "commit", "commit again")


def repeated() -> str:
    """Return the trials with their numbers from the table and those of the repetition, and where it ran."""
    rows = read(FILE)
    if not rows:
        return f"No comparison is in {link(FILE)} yet."
    lines = [
        [
            f"`{row['command'].partition('python train.py ')[2].removesuffix(' runner.ntrials=1')}`",
            *(f"{float(row[name]):.{row['digits']}f}" for name in ("test", "test_again", "validation", "validation_again")),
            *(f"`{row[name][:10]}`" for name in ("commit", "commit_again")),
        ]
        for row in rows
    ]
    places = "; ".join(dict.fromkeys(map(_place, rows)))
    return f"{table(HEADINGS, lines, numbers=6)}\n\nCommand: `python -m benchmarks.repeat`; {places}. File: {link(FILE)}."


def _place(row: Mapping[str, str]) -> str:
    return f"{row['started'][:10]}, {processor(row['processor'])}, threads: {row['threads']}, torch {row['torch']}"
