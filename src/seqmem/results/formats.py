"""Tables of strings as plain text, Markdown, LaTeX and CSV."""

import csv
import io
import re
from collections.abc import Mapping, Sequence

Columns = Mapping[str, Sequence[str]]
"""The cells of each column, by its heading."""

LEFT = (
    "data set",
    "model",
    "metric",
    "not finished",
    "backend",
    "machine",
    "paper",
    "task",
    "published model",
    "published metric",
    "source",
    "note",
    "first",
    "second",
    "method",
    "not compared",
)
"""Columns of words, aligned left; all others are numbers, aligned right."""

_latex = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{symbol: rf"\{symbol}" for symbol in "&%$#_"},
}

_sign = re.compile(r"(?:(?<=^)|(?<= to ))([+-])(?=\d)")
"""The sign of a number, or of an interval's upper end."""


def rows(columns: Columns) -> list[tuple[str, ...]]:
    """Return the cells row by row."""
    return list(zip(*columns.values(), strict=True))


def text(columns: Columns) -> str:
    """Return plain text with aligned columns."""
    lines = [tuple(columns), *rows(columns)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    return "".join("  ".join(map(_justified, columns, line, widths)).rstrip() + "\n" for line in lines)


def markdown(columns: Columns) -> str:
    """Return a Markdown table with numbers aligned right."""
    lines = [tuple(columns), tuple("---" if name in LEFT else "---:" for name in columns), *rows(columns)]
    return "".join(f"| {' | '.join(map(in_markdown, line))} |\n" for line in lines)


def in_markdown(words: str) -> str:
    """Escape a text for a cell of a Markdown table."""
    return words.replace("|", r"\|").replace("<", "&lt;")


def latex(columns: Columns) -> str:
    """Return a LaTeX ``tabular`` that is scaled down where it is larger than a page; needs booktabs and adjustbox."""
    body = [" & ".join(map(_in_latex, line)) + r" \\" for line in (tuple(columns), *rows(columns))]
    head = "".join("l" if name in LEFT else "r" for name in columns)
    lines = [
        r"% \usepackage{booktabs, adjustbox}",
        r"\begin{adjustbox}{max width=\linewidth, max totalheight=0.95\textheight}",
        rf"\begin{{tabular}}{{{head}}}",
        r"\toprule",
        body[0],
        r"\midrule",
        *body[1:],
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{adjustbox}",
    ]
    return "\n".join(lines) + "\n"


def comma_separated(columns: Columns) -> str:
    """Return the text of a CSV file."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([tuple(columns), *rows(columns)])
    return stream.getvalue()


def _justified(name: str, cell: str, width: int) -> str:
    return cell.ljust(width) if name in LEFT else cell.rjust(width)


def _in_latex(cell: str) -> str:
    if cell == "-":
        return "--"
    escaped = "".join(_latex.get(symbol, symbol) for symbol in cell).replace("+/-", r"$\pm$")
    return _sign.sub(r"$\1$", escaped)
