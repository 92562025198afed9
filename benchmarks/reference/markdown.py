"""Parts of Markdown that the generated pages share."""

from collections.abc import Iterable, Sequence


def generated(command: str = "python -m benchmarks.reference") -> str:
    """Return the comment that says what writes a page."""
    return f"<!-- written by {command} -->\n"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a vertical bar in a cell is escaped."""
    lines = [headings, ["---"] * len(headings), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def code(text: str) -> str:
    """Return a code span, or an empty string for an empty text."""
    return f"`{text}`" if text else ""


def sentence(text: str) -> str:
    """Return a text with a capital letter and a full stop."""
    text = text.strip()
    return f"{text[0].upper()}{text[1:]}{'' if text.endswith(('.', '?')) else '.'}" if text else ""
