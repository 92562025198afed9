"""The files below ``benchmarks/results``, and how pages show what they hold."""

import csv
import string
from collections.abc import Iterable

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


def letters(processors: Iterable[str]) -> dict[str, str]:
    """Return a letter for each processor by its name without trademarks, empty if there is only one."""
    names = list(dict.fromkeys(map(processor, processors)))
    return {name: string.ascii_lowercase[i] if len(names) > 1 else "" for i, name in enumerate(names)}


def rounded(rate: float) -> str:
    """Return a rate with three significant digits, and a comma for thousands."""
    return f"{float(f'{rate:.3g}'):,.0f}"
