"""Tables of a user's files, and their cells as numbers, texts and times, with errors that name the line."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seqmem.errors import UserError, suggestion
from seqmem.io.values import is_number, shortened

if TYPE_CHECKING:
    import pandas as pd

MISSING = ("", "?", "-", "--", ".", "na", "n/a", "#n/a", "nan", "-nan", "null", "none", "nil", "missing", "<na>")
"""Marks of a missing number, in small letters."""

UNKNOWN = ("", "?", "nan", "n/a", "#n/a", "null", "<na>")
"""Marks of a missing text, in small letters. A class may be called NA, None or -."""

_truths = {name: value for text, value in (("true", "1"), ("false", "0")) for name in (text, text.title(), text.upper())}
_offset = re.compile(r"[T ]\d\d(:?\d\d)*[^+-]*(Z|[+-]\d\d(:?\d\d)?)$", re.IGNORECASE)
_date = re.compile(r"\d{4}-\d\d(-\d\d)?($|[T ]\d\d)", re.IGNORECASE)
_other_number = re.compile(
    r"[+-]?(\d{1,3}(,\d{3})+(\.\d*)?|\d{1,3}(\.\d{3})+(,\d*)?|\d{1,3}(_\d{3})+([.,]\d*)?|\d*[.,]\d+([eE][+-]?\d+)?)"
)

DURATIONS = "durations in seconds"
"""Unit of times that are durations."""


@dataclass(frozen=True)
class Table:
    """A table with named columns.

    Attributes:
        path: its file.
        frame: the cells; numbers, or texts.
        has_header: the file names its columns; otherwise they are called 0, 1, ...
        line: the place of a row in the file, such as "line 7".
        counts: number of cells of each row of a text file, which may have fewer than there are columns; None for others.
        decimal: the decimal mark of numbers in texts.
        empty: rows of a text file whose cells are all empty, between others.
    """

    path: Path
    frame: "pd.DataFrame"
    has_header: bool
    line: Callable[[int], str]
    counts: Sequence[int] | None = None
    decimal: str = "."
    empty: Sequence[int] = ()

    def without_empty(self) -> "Table":
        """Return the table without its empty rows."""
        if not self.empty:
            return self
        kept = np.setdiff1d(np.arange(len(self.frame)), self.empty)
        counts = None if self.counts is None else [self.counts[row] for row in kept.tolist()]
        frame = self.frame.iloc[kept].reset_index(drop=True)
        return replace(self, frame=frame, line=lambda row: self.line(int(kept[row])), counts=counts, empty=())

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return [str(name) for name in self.frame.columns]

    def place(self, row: int, column: str = "") -> str:
        """Return where a cell is, for a message: "FILE, line 7, column x"."""
        return f"{self.path}, {self.line(row)}" + (f", column {column}" if column else "")

    def require(self, column: str, key: str) -> str:
        """Return the name of a column that a key names.

        Raises:
            UserError: there is no such column.
        """
        if column not in self.columns:
            named = "" if self.has_header else " (the file has no header, so its columns are numbered from 0)"
            raise UserError(
                f"dataset.{key}: got {column!r}, expected a column of {self.path}{named}{suggestion(column, self.columns)}"
            )
        return column


def numbers(table: Table, column: str) -> np.ndarray:
    """Return a column as (n,) float64, NaN for a missing value.

    Raises:
        UserError: a cell is neither a finite number nor a mark of a missing value.
    """
    values, wrong = _parsed(table, column)
    infinite = np.isinf(values)
    if infinite.any():
        raise UserError(
            f"{table.place(int(infinite.argmax()), column)}: got an infinite value, expected a finite number, or an empty cell "
            "for a missing one"
        )
    if wrong.any():
        row = int(wrong.argmax())
        cell = shortened(str(table.frame[column].iloc[row]).strip())
        raise UserError(
            f"{table.place(row, column)}: got '{cell}', expected a number, or an empty cell, ? or NA for a missing one"
            f"{_hint(cell, table.decimal)}{hint_of_header(table, row)}"
        )
    return values


def is_mostly_numbers(table: Table, column: str) -> bool:
    """Return whether more than half of a column's cells that are not missing are numbers; true if all are missing."""
    values, wrong = _parsed(table, column)
    return int(wrong.sum()) <= int(np.isfinite(values).sum())


def has_other_numbers(table: Table, column: str) -> bool:
    """Return whether all cells of a column are numbers, of which some have a thousands separator or the other decimal mark.

    Addresses such as 192.168.100.200 are not numbers.
    """
    cells = table.frame[column]
    if cells.dtype.kind in "iufbmM":
        return False
    others: list[str] = []
    for cell in cells:
        text = str(cell).strip()
        if text.lower() not in MISSING and not _is_own_number(table, text):
            if not _other_number.fullmatch(text):
                return False
            others.append(text)
    return not all(map(_is_address, others))


def _is_address(text: str) -> bool:
    """Return whether a text is an IPv4 address, whose four numbers are at most 255 and do not begin with 0."""
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True


def _is_own_number(table: Table, text: str) -> bool:
    """Return whether a text is a number with the table's decimal mark."""
    return is_number(text) if table.decimal == "." else "." not in text and is_number(text.replace(table.decimal, "."))


def holds_dates(table: Table, column: str) -> bool:
    """Return whether the first cells of a column that are not missing are dates (ISO 8601)."""
    given = [text for text in texts(table, column)[:100] if text is not None]
    return bool(given) and all(map(_date.match, given))


def _parsed(table: Table, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of a column (n,), NaN elsewhere, and where a cell is neither a number nor missing."""
    import pandas as pd

    cells = table.frame[column]
    if cells.dtype.kind in "iufb":
        return cells.to_numpy(np.float64), np.zeros(len(cells), bool)
    if not (pd.api.types.is_object_dtype(cells) or pd.api.types.is_string_dtype(cells)):
        values = pd.to_numeric(cells, errors="coerce").astype("float64") if cells.dtype.kind not in "mM" else None
        if values is not None:
            return values.to_numpy(np.float64, na_value=np.nan), np.zeros(len(cells), bool)
        return np.full(len(cells), np.nan), cells.notna().to_numpy()
    texts = cells.astype("object").where(cells.notna(), "").map(lambda cell: str(cell).strip())
    missing = texts.str.lower().isin(MISSING).to_numpy(bool)
    if table.decimal != ".":
        # A point may separate thousands.
        texts = texts.mask(texts.str.contains(".", regex=False), "a point").str.replace(table.decimal, ".", regex=False)
    values = pd.to_numeric(texts.replace(_truths), errors="coerce").to_numpy(np.float64)
    return np.where(missing, np.nan, values), np.isnan(values) & ~missing


def _hint(cell: str, decimal: str) -> str:
    """Return the end of a message about a cell with a decimal comma or a thousands separator."""
    if "_" in cell and not _other_number.fullmatch(cell):
        return ""
    if not re.sub("[,._]", "", cell).lstrip("+-").isdigit():
        return ""
    if "," in cell or "_" in cell:
        return "; numbers need a decimal point, or a decimal comma in every column, and no thousands separator"
    return "; other numbers have a decimal comma, so the point may separate thousands" if decimal == "," and "." in cell else ""


def hint_of_header(table: Table, row: int) -> str:
    """Return the end of a message about a cell that may be the name of a column."""
    return "" if table.has_header or row else "; if the first line has the names of the columns, give dataset.header=true"


def texts(table: Table, column: str) -> list[str | None]:
    """Return a column as texts without blanks around them; None for a missing one. An integer has no decimals."""
    import pandas as pd

    codes, different = pd.factorize(table.frame[column].astype(object))  # most rows repeat a text
    found: list[str | None] = []
    for code, cell in enumerate(different.tolist()):
        text = str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()
        if isinstance(cell, bytes):
            try:
                text = cell.decode().strip()
            except UnicodeDecodeError:
                where = table.place(int((codes == code).argmax()), column)
                raise UserError(f"{where}: got bytes that are not UTF-8 ({shortened(str(cell))}), expected a text") from None
        found.append(None if text.lower() in UNKNOWN else text)
    return np.array([*found, None], object)[codes].tolist()  # code -1 is a missing one


def times(table: Table, column: str) -> tuple[np.ndarray, str]:
    """Return a column of times (n,) float64, and their unit.

    Returns:
        Numbers as they are, in the "unit of the file". Dates with times of day (ISO 8601), and days such as 20240131, as
        "seconds" since 1970; "seconds in UTC" if they have an offset. Durations of a Parquet file as :data:`DURATIONS`.

    Raises:
        UserError: a cell is missing, is neither a finite number nor such a date, or some dates alone have an offset.
    """
    import pandas as pd

    values, wrong = _parsed(table, column)
    if not wrong.any():
        if not np.isfinite(values).all():
            row = int(np.argmin(np.isfinite(values)))
            raise UserError(f"{table.place(row, column)}: got no time, expected a number or a date in every row")
        days = _days(values)
        return (values, "unit of the file") if days is None else (days, "seconds")
    stamps, in_utc = table.frame[column], np.zeros(len(values), bool)
    if stamps.dtype.kind not in "mM":
        given = stamps.where(stamps.notna(), "").map(lambda cell: str(cell).strip())
        in_utc = given.map(lambda text: _offset.search(text) is not None).to_numpy(bool)
        stamps = pd.to_datetime(given, format="ISO8601", errors="coerce", utc=True)
    elif getattr(stamps.dt, "tz", None) is not None:
        in_utc[:] = True
    missing = stamps.isna().to_numpy()
    if missing.any():
        # The odd one out: among numbers a date, among dates whatever is not one.
        row = int((wrong if wrong.sum() < np.isfinite(values).sum() else missing).argmax())
        cell = table.frame[column].iloc[row]
        shown = "no time" if pd.isna(cell) else f"'{shortened(str(cell).strip())}'"
        raise UserError(
            f"{table.place(row, column)}: got {shown}, expected a number in every row, or a date such as 2024-01-31, "
            f"2024-01-31 12:30 or 2024-01-31T12:30:00.25{hint_of_header(table, row)}"
        )
    if in_utc.any() and not in_utc.all():
        row, other = int(in_utc.argmin()), int(in_utc.argmax())
        shown, cell = (shortened(str(table.frame[column].iloc[k]).strip()) for k in (row, other))
        raise UserError(
            f"{table.place(row, column)}: got '{shown}', a date without an offset from UTC, and '{cell}' with one in "
            f"{table.line(other)}; expected an offset in every date or in none"
        )
    unit = DURATIONS if stamps.dtype.kind == "m" else "seconds in UTC" if in_utc.any() else "seconds"
    return stamps.astype("int64").to_numpy() / _ticks_per_second(stamps), unit


def _days(values: np.ndarray) -> np.ndarray | None:
    """Return days that are written as numbers, such as 20240131, in seconds since 1970; None if one is another number."""
    import pandas as pd

    if not ((values >= 19000101) & (values <= 21001231) & (values % 1 == 0)).all():
        return None
    stamps = pd.to_datetime(pd.Series(values.astype(np.int64)).astype(str), format="%Y%m%d", errors="coerce")
    return None if stamps.isna().any() else stamps.astype("int64").to_numpy() / _ticks_per_second(stamps)


def _ticks_per_second(stamps: "pd.Series") -> float:
    return {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[str(getattr(stamps.dt, "unit", "ns"))]


def refuse_twice(path: Path, names: Sequence[str]) -> None:
    """Refuse a header with a name that occurs twice.

    Raises:
        UserError: naming it.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"{path}: got the column {twice[0]!r} twice, expected different names; rename one in the first line")
