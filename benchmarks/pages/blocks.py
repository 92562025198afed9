"""Generated parts of a page, each between ``<!-- NAME: python -m COMMAND -->`` and ``<!-- end of NAME -->``."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def content(text: str, name: str, command: str) -> str:
    """Return the generated part of a page.

    Args:
        text: of the page.
        name: of the part.
        command: module that writes it, for example ``benchmarks.abilities``.

    Raises:
        SystemExit: the page has no such part.
    """
    return _find(text, name, command)[1]


def replaced(text: str, name: str, command: str, part: str) -> str:
    """Return the text of a page with a new generated part; the other arguments are those of :func:`content`."""
    found = _find(text, name, command)
    return f"{text[: found.start(1)]}{part.strip()}\n{text[found.end(1) :]}"


def _find(text: str, name: str, command: str) -> re.Match[str]:
    start, end = f"<!-- {name}: python -m {command} -->", f"<!-- end of {name} -->"
    found = re.search(f"{re.escape(start)}\n(.*?){re.escape(end)}", text, re.DOTALL)
    if found is None:
        raise SystemExit(f"error: got a page without {start} and {end}, between which python -m {command} writes")
    return found


def updated(path: Path, makers: Mapping[str, Callable[[], str]]) -> str:
    """Return the text of a page, its generated parts made anew.

    Args:
        path: of the page.
        makers: functions that return the Markdown of a part, by its name. The page has each of them once.
    """
    text = path.read_text(encoding="utf-8")
    expected, found = list(makers), re.findall(r"<!-- (\w+): python -m benchmarks\.pages -->", text)
    if sorted(expected) != sorted(found):
        raise SystemExit(f"error: {path}: got the generated parts {found}, expected {expected}")
    for name, make in makers.items():
        text = replaced(text, name, "benchmarks.pages", make())
    return text


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
