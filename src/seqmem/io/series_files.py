"""Readers and writers of series in CSV and NumPy files."""

import csv
import io
import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from seqmem.errors import UserError
from seqmem.io.archive import DAMAGE, read_arrays, write_arrays
from seqmem.io.files import decoded, read_bytes, replacing
from seqmem.io.values import is_number, shortened
from seqmem.io.zips import check_size

LABEL = "series"
"""Column of a CSV file with the name of a row's series."""

SEPARATORS = ";\t"
"""Separators of columns that are not read, for hints."""


def read_series(path: Path) -> tuple[list[str], list[np.ndarray]]:
    """Read the names and the series of a file.

    * CSV with a header that has a column ``series``: each row is a step of the series that it names, the other columns are
      channels.
    * CSV of numbers alone: each row is a series of one channel, which ends before trailing empty cells. Several rows of one
      number each are refused, since they are most often one series that is written as a column.
    * NPY: (n, T) or (n, T, ...). NPZ: each array is a series (T,) or (T, ...), of any T, with its name.

    Returns:
        The names, and for each series an array (T, ...) float32, (T, 1) for one channel.

    Raises:
        UserError: the file cannot be read, has a different content, or a value that is not finite.
    """
    if path.suffix.lower() == ".csv":
        return _of_rows(_rows(path), path)
    try:
        match path.suffix.lower():
            case ".npy":
                with open(path, "rb") as file:
                    array = np.lib.format.read_array(file, allow_pickle=False)
                found = {str(k): each for k, each in enumerate(array if array.ndim > 1 else [])}
            case ".npz":
                with zipfile.ZipFile(path) as archive:
                    check_size(archive)
                    found = read_arrays(archive)
            case suffix:
                raise UserError(f"cannot read {path}: got a file '{suffix}', expected .csv, .npy or .npz")
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})") from None
    except UserError:
        raise
    except DAMAGE as error:
        raise UserError(f"cannot read {path} ({error})") from None
    if not found or any(each.dtype.kind not in "fiub" or each.ndim == 0 for each in found.values()):
        raise UserError(f"{path} has no series of numbers; expected (n, T) or (n, T, C), or in .npz arrays (T, C)")
    with np.errstate(over="ignore"):  # values beyond float32 become infinite
        series = [(each[:, None] if each.ndim == 1 else each).astype(np.float32) for each in found.values()]
    for name, each in zip(found, series, strict=True):
        if not np.isfinite(each).all():
            step = int(np.argwhere(~np.isfinite(each))[0, 0])
            raise UserError(f"{path}, series {name}: got a value at step {step} that is not finite")
    return list(found), series


def read_channels(path: Path) -> list[str]:
    """Return the names of the channels of a CSV file with a header, in its order; empty for other files.

    Raises:
        UserError: the file cannot be read.
    """
    rows = _rows(path) if path.suffix.lower() == ".csv" else []
    header = [name.strip() for name in rows[0][1]] if rows else []
    return [name for name in header if name != LABEL] if LABEL in header else []


def write_series(path: Path, names: Sequence[str], series: Sequence[np.ndarray]) -> None:
    """Write series (T, ...) in a format of :func:`read_series`: .csv with a column ``series``, or .npz.

    Raises:
        UserError: an unknown suffix, frames in a CSV file, or the file cannot be written.
    """
    if path.suffix.lower() == ".npz":
        with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            write_arrays(archive, dict(zip(names, series, strict=True)))
        return
    if path.suffix.lower() != ".csv":
        raise UserError(f"cannot write {path}: got a file '{path.suffix}', expected .csv or .npz")
    if any(each.ndim != 2 for each in series):
        raise UserError(f"cannot write {path}: got series of frames, expected numbers or vectors in a CSV file; give a .npz")
    header = [LABEL, *(f"x{channel}" for channel in range(series[0].shape[1]))]
    rows = [[name, *map(repr, row)] for name, each in zip(names, series, strict=True) for row in each.tolist()]
    write_rows(path, [header, *rows])


def write_rows(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV file atomically."""
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def read_encodings(path: Path) -> tuple[list[str], list[int], np.ndarray]:
    """Read names (n), lengths (n) and encodings (n, E) from a CSV file with columns ``series``, ``length``, ``z0``, ``z1``, ...

    The columns may be in any order.

    Raises:
        UserError: the file cannot be read, or has a different content.
    """
    (_, header), *rows = _rows(path) or [(1, [])]
    places = _places_of_encodings(path, header)
    if not {LABEL, "length"} <= set(header) or not places or not rows:
        raise UserError(f"{path} has no encodings; expected columns {LABEL}, length, z0, z1, ... and a row for each series")
    length, label = header.index("length"), header.index(LABEL)
    values: list[np.ndarray] = []
    names: list[str] = []
    for line, row in rows:
        if len(row) != len(header):
            raise UserError(f"{path}, line {line}: got {len(row)} cells, expected {len(header)} as in the first line")
        values.append(_numbers([row[length], *(row[place] for place in places)], path, line))
        if values[-1][0] < 1 or values[-1][0] % 1:
            raise UserError(f"{path}, line {line}: got length '{row[length]}', expected a whole number of at least 1")
        if row[label] in names:
            raise UserError(f"{path}, line {line}: got series '{row[label]}' a second time, expected each once")
        names.append(row[label])
    table = np.stack(values)
    return names, table[:, 0].astype(int).tolist(), table[:, 1:]


def _places_of_encodings(path: Path, header: Sequence[str]) -> list[int]:
    """Return the places of z0, z1, ... in this order.

    Raises:
        UserError: a number is missing, or there twice.
    """
    found = sorted((int(name[1:]), k) for k, name in enumerate(header) if re.fullmatch(r"z\d+", name))
    for expected, (number, place) in enumerate(found):
        if number != expected:
            raise UserError(
                f"{path}: got the column '{header[place]}' and no 'z{expected}', expected z0 to z{found[-1][0]}, each once"
                if number > expected
                else f"{path}: got the column '{header[place]}' twice, expected each number once"
            )
    return [place for _, place in found]


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """The rows of a CSV file that are not blank lines, each with the number of its line."""
    content = decoded(path, read_bytes(path))
    try:
        reader = csv.reader(io.StringIO(content))
        return [(reader.line_num, row) for row in reader if row[1:] or (row and row[0].strip())]
    except csv.Error as error:
        raise UserError(f"cannot read {path} ({error})") from None


def _of_rows(rows: list[tuple[int, list[str]]], path: Path) -> tuple[list[str], list[np.ndarray]]:
    if rows and _is_row_of_numbers(rows[0][1]):
        series = [_numbers(_stripped(row, path, line), path, line)[:, None] for line, row in rows]
        if len(series) > 1 and all(len(each) == 1 for each in series):
            raise UserError(
                f"{path}: got one number on each of {len(series)} lines, expected a series on each line; write one series as "
                f"one line, or put its values into a column next to a column '{LABEL}' with its name"
            )
        return [str(k) for k in range(len(series))], series
    header = [name.strip() for name in rows[0][1]] if rows else []
    if len(rows) < 2:
        raise UserError(f"{path} has no series")
    if LABEL not in header:
        separated = ", with commas between the columns" if any(mark in name for name in header for mark in SEPARATORS) else ""
        raise UserError(
            f"{path}, line {rows[0][0]}: got names without '{LABEL}' ({_first(header)}), expected a column '{LABEL}' with "
            f"the name of each step's series, or no names if each row is a series{separated}"
        )
    place = header.index(LABEL)
    found: dict[str, list[np.ndarray]] = {}
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise UserError(f"{path}, line {line}: got {len(row)} cells, expected {len(header)} as in the first line")
        found.setdefault(row[place], []).append(_numbers(row[:place] + row[place + 1 :], path, line))
    return list(found), [np.stack(steps) for steps in found.values()]


def _is_row_of_numbers(row: list[str]) -> bool:
    """Whether a file's first row has numbers and not names; blanks are refused as numbers."""
    first = next((cell for cell in row if cell.strip()), "0")
    return is_number(re.split(r"[;\s]", first.strip())[0])


def _first(header: list[str]) -> str:
    return ", ".join([*header[:4], *(["..."] if len(header) > 4 else [])])


def _stripped(row: list[str], path: Path, line: int) -> list[str]:
    end = len(row)
    while end and not row[end - 1].strip():
        end -= 1
    if end == 0:
        raise UserError(f"{path}, line {line}: got a row of blanks, expected the numbers of a series")
    return row[:end]


def _numbers(cells: list[str], path: Path, line: int) -> np.ndarray:
    wrong = next((cell for cell in cells if not is_number(cell)), None)
    if wrong is not None and any(mark in cell for cell in cells for mark in SEPARATORS):
        raise UserError(
            f"{path}, line {line}: got {shortened(repr(','.join(cells)))}, expected numbers separated by commas, with a "
            "decimal point and not a decimal comma"
        )
    if wrong is not None:
        raise UserError(f"{path}, line {line}: got '{wrong}', expected a number")
    with np.errstate(over="ignore"):  # values beyond float32 become infinite
        values = np.array([float(cell) for cell in cells]).astype(np.float32)
    if not np.isfinite(values).all():
        wrong = cells[int(np.argmin(np.isfinite(values)))]
        raise UserError(f"{path}, line {line}: got '{wrong}', expected a finite number")
    return values
