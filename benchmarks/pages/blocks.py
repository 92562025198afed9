"""Generated parts of a page, each between ``<!-- NAME: python -m benchmarks.pages -->`` and ``<!-- end of NAME -->``."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"(<!-- (\w+): python -m benchmarks\.pages -->\n)(.*?)(<!-- end of \2 -->)", re.DOTALL)


def names(text: str) -> list[str]:
    """Return the names of the generated parts of a page, in their order."""
    return [found[2] for found in _BLOCK.finditer(text)]


def updated(path: Path, makers: Mapping[str, Callable[[], str]]) -> str:
    """Return the text of a page, its generated parts made anew.

    Args:
        path: of the page.
        makers: functions that return the Markdown of a part, by its name. The page has each of them once.
    """
    text = path.read_text(encoding="utf-8")
    expected, found = list(makers), names(text)
    if sorted(expected) != sorted(found):
        raise SystemExit(f"error: {path}: got the generated parts {found}, expected {expected}")
    return _BLOCK.sub(lambda block: f"{block[1]}{makers[block[2]]().strip()}\n{block[4]}", text)


def table(headings: Sequence[str], lines: Iterable[Sequence[str]], numbers: int | None = None) -> str:
    """Return a Markdown table.

    Args:
        headings: of the columns.
        lines: cells of each row.
        numbers: the number of columns from the right that hold numbers; None for all but the first.
    """
    words = len(headings) - (len(headings) - 1 if numbers is None else numbers)
    rule = "|".join(["---"] * words + ["---:"] * (len(headings) - words))
    return "\n".join([f"| {' | '.join(headings)} |", f"|{rule}|", *(f"| {' | '.join(line)} |" for line in lines)])
