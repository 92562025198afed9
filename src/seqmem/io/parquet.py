"""Series of Parquet files; large ones are read by row groups as they are needed."""

import re
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from seqmem.errors import UserError, not_installed
from seqmem.io.arrays import LARGE
from seqmem.io.collection import Collection, Reading
from seqmem.io.columns import guessed, names_splits, of_table
from seqmem.io.frames import layout_of, series_of
from seqmem.io.tables import Table, refuse_twice

CACHED = 2**27
"""Bytes of row groups that are kept for further reads."""


def read_parquet(path: Path, reading: Reading) -> Collection:
    """Read a Parquet file, as a table in memory or by row groups.

    Raises:
        UserError: pyarrow is not installed; or the file cannot be read, or has a different content.
    """
    file = _opened(path)
    size = sum(file.metadata.row_group(k).total_byte_size for k in range(file.metadata.num_row_groups))
    large = size > LARGE if reading.in_memory is None else not reading.in_memory
    return _by_row_groups(path, file, reading) if large else series_of(read_table(path), reading)


def read_table(path: Path) -> Table:
    """Read a Parquet file as a table.

    Raises:
        UserError: as :func:`read_parquet`.
    """
    return _table(path, _opened(path), None)


def _opened(path: Path) -> Any:
    try:
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UserError(f"{path}: pyarrow {not_installed('parquet')}") from None
    try:
        return ParquetFile(path)
    except (OSError, ArrowInvalid) as error:
        raise UserError(f"cannot read {path} ({error}); expected a Parquet file") from None


def _table(path: Path, file: Any, columns: list[str] | None) -> Table:
    try:
        kept = _columns(file) if columns is None else columns
        frame = file.read(columns=kept).to_pandas(ignore_metadata=True)
    except Exception as error:  # pyarrow raises many types
        raise UserError(f"cannot read {path} ({error})") from None
    names = [str(name) for name in frame.columns]
    refuse_twice(path, names)
    if not len(frame):
        raise UserError(f"{path} is empty; expected a row for each step or each series")
    frame.columns = names
    return Table(path, frame, True, lambda row: f"row {row}")


def _columns(file: Any) -> list[str]:
    """Return the names of the columns, without the index that pandas writes."""
    return [name for name in file.schema_arrow.names if not re.fullmatch(r"__index_level_\d+__", name)]


def _by_row_groups(path: Path, file: Any, reading: Reading) -> Collection:
    """Read everything but the channels of a long table whose series are one after the other."""
    schema = file.schema_arrow
    names = _columns(file)
    refuse_twice(path, names)
    empty = Table(path, schema.empty_table().select(names).to_pandas(ignore_metadata=True), True, lambda row: f"row {row}")
    split = guessed(names, reading).split
    if split is not None and split != reading.split_column and not reading.new:  # a guess
        given = names_splits(_table(path, file, [split]), split)
        reading = replace(reading, split_column=split if given else None)
    columns = of_table(empty, reading)
    if columns.id is None:
        raise UserError(
            f"{path} is read by row groups, which needs a column of the series' names; name it: dataset.id_column=NAME, or "
            "give dataset.in_memory=true"
        )
    import pyarrow

    is_number = (pyarrow.types.is_integer, pyarrow.types.is_floating, pyarrow.types.is_boolean)
    numeric = [name for name in names if any(each(schema.field(name).type) for each in is_number)]
    channels = list(reading.channel_columns) or [name for name in numeric if name not in columns.named]
    if not channels or not set(channels) <= set(numeric):
        raise UserError(f"{path}: got the channels {channels or 'none'}, expected columns of numbers ({', '.join(numeric)})")
    rest = [name for name in names if name in columns.named]
    table = _table(path, file, rest)
    if (reading.layout or layout_of(table, columns, reading)) == "wide":
        raise UserError(
            f"{path} is read by row groups, which needs a row for each step, but each row is a series; give "
            "dataset.in_memory=true, or dataset.layout=long if each series has one step"
        )
    table.frame[channels[0]] = 0.0  # a channel, whose values are read later
    found = series_of(table, replace(reading, channel_columns=(channels[0],), layout="long"))
    ids = table.frame[columns.id].to_numpy()
    if int((ids[1:] != ids[:-1]).sum()) + 1 != len(found):
        raise UserError(
            f"{path} is read by row groups, which needs the rows of each series one after the other; sort it by {columns.id}, "
            "or give dataset.in_memory=true"
        )
    if found.roles.get("order"):
        raise UserError(
            f"{path} is read by row groups, which needs steps in the order of their times; sort it by {columns.id} and "
            f"{columns.time}, or give dataset.in_memory=true"
        )
    return replace(found, channels=tuple(channels), values=RowGroups(path, channels, len(table.frame)), in_memory=False)


class RowGroups:
    """Columns of a Parquet file as rows (N, C) float64; the row groups of the last reads are kept.

    Args:
        path: the file.
        columns: numbers; a missing one is NaN.
        rows: N.
    """

    def __init__(self, path: Path, columns: list[str], rows: int):
        self._path, self._columns, self._rows = path, columns, rows
        self._groups: OrderedDict[int, np.ndarray] = OrderedDict()
        self._file: Any = None
        self._ends = np.empty(0, np.int64)

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, rows: slice) -> np.ndarray:
        if self._file is None:
            self._file = _opened(self._path)
            counts = [self._file.metadata.row_group(k).num_rows for k in range(self._file.metadata.num_row_groups)]
            self._ends = np.cumsum(counts)
        first = int(np.searchsorted(self._ends, rows.start, side="right"))
        last = int(np.searchsorted(self._ends, rows.stop - 1, side="right"))
        parts = [self._group(k) for k in range(first, last + 1)]
        before = int(self._ends[first]) - len(parts[0])
        found = np.concatenate(parts) if parts[1:] else parts[0]
        return found[rows.start - before : rows.stop - before].copy()

    def _group(self, number: int) -> np.ndarray:
        if number not in self._groups:
            table = self._file.read_row_group(number, columns=self._columns)
            self._groups[number] = np.stack(
                [table[name].to_numpy().astype(np.float64, copy=False) for name in self._columns], axis=1
            )
            while len(self._groups) > 1 and sum(group.nbytes for group in self._groups.values()) > CACHED:
                self._groups.popitem(last=False)
        self._groups.move_to_end(number)
        return self._groups[number]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_groups": OrderedDict(), "_file": None}  # another process opens the file itself
