"""The files below ``benchmarks/results``, and how pages show what they hold."""

import csv

from benchmarks import output


def read(file: str) -> list[dict[str, str]]:
    """Return the rows of a file below benchmarks/results."""
    with open(output.RESULTS / file, newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def link(file: str) -> str:
    """Return a Markdown link to a file below benchmarks/results, for a page in a folder of docs/."""
    return f"[benchmarks/results/{file}](../../benchmarks/results/{file})"


def processor(name: str) -> str:
    """Return the name of a processor without its trademarks."""
    return name.replace("(R)", "").replace("(TM)", "")


def rounded(rate: float) -> str:
    """Return a rate with three significant digits, and a comma for thousands."""
    return f"{float(f'{rate:.3g}'):,.0f}"
