"""Tables in text files as people have them: encoding, separator, decimal mark and header are found out."""

import csv
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from seqmem.errors import UserError
from seqmem.io.columns import NAMES, plain
from seqmem.io.files import decoded
from seqmem.io.tables import MISSING, Table, refuse_twice
from seqmem.io.values import is_number, shortened

if TYPE_CHECKING:
    import pandas as pd

SEPARATORS = (";", "\t", "|", ",", " ")
"""Separators of columns, the more decisive ones first. A blank stands for any number of blanks."""

TextColumns = Callable[[Sequence[str]], set[str]]

_sampled = 200
_marks = [*MISSING[1:], *(mark.upper() for mark in MISSING[1:]), "NaN", "Null", "None", "-NaN", "", "Missing"]
_decimal_comma = re.compile(r"[+-]?\d*,(\d+)([eE][+-]?\d+)?")
_decimal_point = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?")


@dataclass(frozen=True)
class _Rows:
    """Rows of a text file.

    Attributes:
        lines: number of the line at which a row begins.
        texts: the row without line breaks.
        counts: its number of cells.
        empty: whether it has separators or quotes alone.
    """

    lines: list[int]
    texts: list[str]
    counts: list[int]
    empty: list[bool]

    def trimmed(self) -> "_Rows":
        """Return the rows without empty ones at the beginning and the end, or of fewer cells than others."""
        filled = [k for k, is_empty in enumerate(self.empty) if not is_empty]
        if not filled:
            return _Rows([], [], [], [])
        width = max(self.counts)
        kept = [k for k in range(filled[0], filled[-1] + 1) if not self.empty[k] or self.counts[k] == width]
        return _Rows(
            [self.lines[k] for k in kept],
            [self.texts[k] for k in kept],
            [self.counts[k] for k in kept],
            [self.empty[k] for k in kept],
        )


def read_text_table(
    path: Path, content: bytes, encoding: str = "utf-8", header: bool | None = None, as_text: TextColumns = lambda names: set()
) -> tuple[Table, str]:
    """Read a CSV file, or one with other separators.

    Blank lines are left out, lines of separators alone at the beginning and the end, and columns without a name and a cell.

    Args:
        path: for messages; a name that ends in .gz is that of a compressed file.
        content: of the file.
        encoding: name of Python's codec.
        header: whether the first line has the names of the columns; None to find out.
        as_text: from the names of all columns, those whose cells stay texts as they are, such as labels.

    Returns:
        The table, and how it was read, such as "separator ';', decimal comma".

    Raises:
        UserError: the file is empty, is not a text in this encoding, has decimal commas and points, or a line has more cells
            than the others.
    """
    text = _decoded(path, _unpacked(path, content), encoding)
    separator = _separator(text)
    rows = _rows(path, text, separator).trimmed()
    if not rows.texts:
        raise UserError(f"{path} is empty; expected a line for each step or each series")
    mark = "\t" if separator == " " else separator
    filled = [k for k, is_empty in enumerate(rows.empty) if not is_empty][:_sampled]
    sample = _parsed([rows.texts[k] for k in filled], mark)
    named = _has_header(sample) if header is None else header
    if named and len(rows.texts) == 1:
        raise UserError(f"{path} has a header and no further line; expected a line for each step or each series")
    names = [cell.strip() for cell in sample[0]] if named else [str(k) for k in range(max(rows.counts))]
    kept_as_text = as_text(names)
    places = [k for k, name in enumerate(names) if name not in kept_as_text]
    lines = [rows.lines[k] for k in filled]
    decimal = _decimal_mark(path, list(zip(lines, sample, strict=False))[named:], places)
    frame = _frame(path, rows, mark, names, named, decimal, kept_as_text)
    lines = rows.lines[named:]
    shown = {"\t": "tab", " ": "blank"}.get(separator, f"'{separator}'")
    note = f"separator {shown}{', decimal comma' if decimal == ',' else ''}{'' if named else ', no header'}"
    empty = tuple(k for k, is_empty in enumerate(rows.empty[named:]) if is_empty)
    return Table(path, frame, named, lambda row: f"line {lines[row]}", rows.counts[named:], decimal, empty), note


def _unpacked(path: Path, content: bytes) -> bytes:
    if path.suffix.lower() != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path} ({error}); expected a gzip file") from None


def _decoded(path: Path, content: bytes, encoding: str) -> str:
    if encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        try:
            return decoded(path, content)
        except UserError as error:
            raise UserError(f"{error}; save it as UTF-8, or name its encoding: dataset.encoding=cp1252") from None
    try:
        text = content.decode(encoding)
    except LookupError:
        raise UserError(f"dataset.encoding: got {encoding!r}, expected an encoding such as utf-8, cp1252 or latin-1") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: got a byte at {error.start} that is not {encoding}; change dataset.encoding") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _separator(text: str) -> str:
    """Return the separator that nearly all of the first lines have, if possible the same number of times."""
    lines = [line for line in text[: 2**20].split("\n") if line.strip()][:_sampled]
    found = []
    for separator in SEPARATORS:
        cells = [line.split() for line in lines] if separator == " " else _parsed(lines, separator)
        counts = Counter(map(len, cells))
        # A line above the header may have none. Rows of different lengths have different numbers of them.
        if sum(number for count, number in counts.items() if count > 1) >= 0.9 * len(lines) > 0:
            found.append((max(number for count, number in counts.items() if count > 1) >= 0.9 * len(lines), separator))
    regular = [separator for is_regular, separator in found if is_regular]
    return next(iter([*regular, *(separator for _, separator in found)]), ",")


def _parsed(lines: list[str], separator: str) -> list[list[str]]:
    try:
        return list(csv.reader(lines, delimiter=separator))
    except csv.Error:
        return [line.split(separator) for line in lines]


def _rows(path: Path, text: str, separator: str) -> _Rows:
    """Leave out blank lines; give each row one line."""
    if '"' in text:
        return _quoted_rows(path, text, separator)
    blanks = " " if separator == "\t" else " \t"
    kept = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip(blanks)]
    if separator == " ":
        kept = [(number, "\t".join(line.split())) for number, line in kept]
    mark = "\t" if separator == " " else separator
    empty = [not line.strip(f"{separator} \t") for _, line in kept]
    return _Rows([number for number, _ in kept], [line for _, line in kept], [line.count(mark) + 1 for _, line in kept], empty)


def _quoted_rows(path: Path, text: str, separator: str) -> _Rows:
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True)
    output, lines, counts, empty, begin = io.StringIO(), [], [], [], 1
    writer = csv.writer(output, delimiter="\t" if separator == " " else separator, lineterminator="\n")
    try:
        for row in reader:
            first, begin = begin, reader.line_num + 1
            if separator == " ":
                row = [cell for cell in row if cell]
            if row:
                writer.writerow([" ".join(cell.split("\n")) for cell in row])
                lines.append(first)
                counts.append(len(row))
                empty.append(not any(cell.strip() for cell in row))
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: cannot be read ({error})") from None
    return _Rows(lines, output.getvalue().split("\n")[:-1], counts, empty)


def _has_header(rows: list[list[str]]) -> bool:
    """Return whether the first row has names: no number, or numbers that name the steps of a wide table.

    Marks of missing numbers may be names beside a text unlike those of further rows in its place, as in ``id,time,NA,FR``: one
    that is known for a column, or has numbers below it.

    Numbers count from 0 or 1, or stand beside a text unlike those of further rows in its place: a name that is known for a
    column, as in ``label,400,402``, or any if four or more numbers are equally spaced, as in ``country,1960,1961,1962,1963``.
    """
    cells = [cell.strip() for cell in rows[0]]
    values = [cell for cell in cells if cell and _is_value(cell)]
    if not values:
        return True
    texts = [place for place, cell in enumerate(cells) if cell and not _is_value(cell)]
    repeats = any(_kind(cells[place]) in {_kind(row[place]) for row in rows[1:] if len(row) > place} for place in texts)
    known = any(plain(cells[place]) in NAMES for place in texts)
    if all(value.lower() in MISSING for value in values):
        return len(rows) > 1 and not repeats and (known or any(_has_numbers(rows[1:], place) for place in texts))
    if len(values) > 1 and len(rows) > 1 and all(value.isdigit() for value in values):
        steps = [int(value) for value in values]
        intervals = {after - before for before, after in pairwise(steps)}
        if repeats:
            return False
        if intervals == {1} and steps[0] in (0, 1):
            return rows[0] != rows[1]
        spaced = len(steps) > 3 and len(intervals) == 1 and intervals != {0} and _differ(values, rows)
        return known or (bool(texts) and spaced)
    return False


def _has_numbers(rows: list[list[str]], place: int) -> bool:
    """Return whether the cells of a column are numbers, apart from missing ones."""
    given = [cell for row in rows if len(row) > place and (cell := row[place].strip()).lower() not in MISSING]
    return bool(given) and all(map(_is_value, given))


def _kind(cell: str) -> str:
    """Return a text without its digits: that of s1 and s2 is the same."""
    return re.sub(r"\d+", "", cell.strip())


def _differ(steps: Sequence[str], rows: list[list[str]]) -> bool:
    """Return whether no further row ends with these steps, or with equally spaced ones as they are."""
    interval = int(steps[1]) - int(steps[0])
    for row in rows[1:]:
        cells = [cell.strip() for cell in row[-len(steps) :]]
        if all(cell.isdigit() for cell in cells) and {int(b) - int(a) for a, b in pairwise(cells)} == {interval}:
            return False
    return True


def _is_value(cell: str) -> bool:
    return is_number(cell) or cell.lower() in MISSING or bool(_decimal_comma.fullmatch(cell))


def _decimal_mark(path: Path, rows: Sequence[tuple[int, list[str]]], places: Sequence[int]) -> str:
    """Return the decimal mark of numbers; three digits after each comma alone may be thousands.

    Args:
        path: for messages.
        rows: the first ones, each with its line.
        places: of columns that may have numbers; empty if all have texts, some of which may be numbers.

    Raises:
        UserError: both marks occur, so that one of them may separate thousands.
    """

    def found(mark: str, pattern: re.Pattern[str]) -> Iterator[tuple[int, re.Match[str]]]:
        for line, row in rows:
            for cell in [row[place] for place in places if place < len(row)] if places else row:
                if mark in cell and (match := pattern.fullmatch(cell.strip())):
                    yield line, match

    commas = found(",", _decimal_comma)
    comma = next(((k, m) for k, m in commas if len(m[1]) != 3 or m[0].lstrip("+-").startswith(("0,", ","))), None)
    if comma is None:
        return "."
    point = next(found(".", _decimal_point), None)
    if point is None:
        return ","
    if not places:
        return "."
    raise UserError(
        f"{path}: got '{comma[1][0]}' in line {comma[0]} and '{point[1][0]}' in line {point[0]}, expected one decimal mark and "
        "no thousands separator; if a column of texts has one of them, name those of values: dataset.channel_columns=[x,y]"
    )


def _frame(
    path: Path, rows: _Rows, separator: str, names: list[str], named: bool, decimal: str, kept_as_text: set[str]
) -> "pd.DataFrame":
    """Parse the rows: numbers where a whole column has them, texts elsewhere."""
    import pandas as pd

    width = max(rows.counts)
    columns = [*names, *[""] * (width - len(names))]
    refuse_twice(path, [name for name in columns if name])
    numeric = [k for k, name in enumerate(columns) if name not in kept_as_text]
    try:
        frame = pd.read_csv(
            io.StringIO("\n".join(rows.texts[named:]) + "\n"),
            sep=separator,
            header=None,
            names=range(len(columns)),
            index_col=False,
            dtype={k: str for k, name in enumerate(columns) if name in kept_as_text},
            na_values=dict.fromkeys(numeric, _marks),
            keep_default_na=False,
            decimal=decimal,
            skipinitialspace=True,
            skip_blank_lines=False,
            float_precision="round_trip",
            low_memory=False,
        )
    except (ValueError, OverflowError) as error:
        raise UserError(f"{path} cannot be read ({error})") from None
    unnamed = [k for k, name in enumerate(columns) if not name]
    for k in unnamed:
        _refuse_unnamed(path, rows, frame[k], k, len(names), named)
    frame = frame.drop(columns=unnamed)
    frame.columns = pd.Index([name for name in columns if name], dtype=object)
    return frame


def _refuse_unnamed(path: Path, rows: _Rows, cells: "pd.Series", place: int, named_columns: int, named: bool) -> None:
    """Refuse cells without a name, except blank ones and the numbers of the rows that pandas writes first."""
    filled = cells.notna() & (cells.astype(str).str.strip() != "")
    if not filled.any():
        return
    if place == 0 and filled.all() and cells.astype(str).str.strip().tolist() == [str(k) for k in range(len(cells))]:
        return
    row = int(filled.to_numpy().argmax())
    raise UserError(
        f"{path}, line {rows.lines[named:][row]}: got '{shortened(str(cells.iloc[row]))}' in cell {place + 1}, which has no "
        f"name in the header of {named_columns} names; name its column, remove lines above the header, or "
        "give dataset.header=false if the first line is data"
    )
