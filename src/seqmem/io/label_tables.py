"""Labels, groups and splits of series from a table of their own."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np

from seqmem.errors import UserError, nearest
from seqmem.io.collection import Collection, Reading
from seqmem.io.columns import NONE, Columns, of_table, splits_of
from seqmem.io.files import checksum
from seqmem.io.series_names import stem
from seqmem.io.tables import Table, numbers, texts


def with_labels(found: Collection, table: Table, reading: Reading) -> Collection:
    """Return series with the labels, groups and splits of a table.

    The column of ids is the one that a key or its own name says, or else one whose cells name every series, with or without a
    file's suffix and folder. Without it, rows are in the order of the series if the table has no further column. Files of a
    folder have no such order.

    Args:
        found: the series.
        table: with a row for each series; further rows are left out.
        reading: keys of the columns.

    Raises:
        UserError: a series has no row or several, no column is known to name the series, or the table has no labels. New files
            may lack rows and labels.
    """
    reading = replace(
        reading,
        time_column=None,
        channel_columns=(),
        id_may_lack=found.roles.get("series id") == reading.id_column,
        column_count=None,
        optional_columns=(),
    )
    columns = of_table(table, reading)
    if reading.new and not columns.labels:
        return found
    column = _id_column(found, table, columns, reading)
    rows = _rows(found, table, column, reading)
    if not columns.labels and reading.target != "none":
        raise UserError(
            f"{table.path} has no column of labels (its columns: {', '.join(table.columns[:12])}); name it: "
            "dataset.label_column=NAME"
        )
    labels = found.labels
    targets, target_names = found.targets, found.target_names
    if columns.labels and reading.target == "class":
        labels = _picked(texts(table, columns.labels[0]), rows)
    elif columns.labels and reading.target == "value":
        values = np.stack([numbers(table, name) for name in columns.labels], 1)
        targets, target_names = np.where(rows[:, None] < 0, np.nan, values[rows]), columns.labels
    groups = found.groups if columns.group is None else _picked(texts(table, columns.group), rows)
    splits = found.splits
    if columns.split is not None:
        given = _picked(texts(table, columns.split), rows)
        splits = splits_of(given, lambda k: table.place(int(rows[k]), str(columns.split)))
    name = table.path.name if table.path.name not in found.files else f"labels: {table.path.name}"
    shown = {
        "labels of": f"{table.path}, {'in the order of the series' if column is None else f'by {column}'}",
        "label": ", ".join(columns.labels),
        "group": columns.group or "",
        "split": columns.split or "",
        "ignored columns of the labels": ", ".join(
            name for name in table.columns if name in columns.useless or name not in {*columns.named, column}
        ),
    }
    return replace(
        found,
        labels=labels,
        targets=targets,
        target_names=target_names,
        groups=groups,
        splits=splits,
        files={**found.files, name: checksum(table.path)},
        roles={**found.roles, **{name: text for name, text in shown.items() if text}},
    )


def _rows(found: Collection, table: Table, column: str | None, reading: Reading) -> np.ndarray:
    """Return the row of each series; -1 for a series without a row, which only new files may have."""
    if column is None:
        return np.arange(len(found))
    rows = _by_name(table, column)
    rows_of_end, series_of_end = (_by_end(each) for each in (rows, map(stem, found.names)))
    places = []
    for name in map(stem, found.names):
        ending = [key for key in rows_of_end[PurePosixPath(name).name] if _one_ends_with_other(key, name)]
        place = rows.get(name, -1)
        if place < 0 and len(ending) == 1:
            [key] = ending
            series = [each for each in series_of_end[PurePosixPath(key).name] if _one_ends_with_other(key, each)]
            place = rows[key] if len(series) == 1 else -1
        if place < 0 and not reading.new:
            near = nearest(name, list(rows)[:1000])
            hint = f"; did you mean {near!r}?" if near else ""
            raise UserError(f"{table.path} has no row for the series {name!r} of {found.path} in column {column}{hint}")
        places.append(place)
    return np.array(places)


def _by_name(table: Table, column: str) -> dict[str, int]:
    """Return the row of each name, without a file's suffix."""
    rows: dict[str, int] = {}
    for row, cell in enumerate(texts(table, column)):
        if cell is None:
            continue
        name = stem(cell)
        if name in rows:
            raise UserError(f"{table.place(row, column)}: got series {cell!r} a second time, expected each once")
        rows[name] = row
    return rows


def _by_end(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the names, which may be paths, by their last parts."""
    found = defaultdict(list)
    for name in names:
        found[PurePosixPath(name).name].append(name)
    return found


def _one_ends_with_other(one: str, other: str) -> bool:
    """Return whether a path is the end of the other one, as r0 is that of u1/r0."""
    parts = sorted((PurePosixPath(one).parts, PurePosixPath(other).parts), key=len)
    return parts[1][-len(parts[0]) :] == parts[0]


def _id_column(found: Collection, table: Table, columns: Columns, reading: Reading) -> str | None:
    """Return the column that names the series of rows; None if rows are in the order of the series.

    Raises:
        UserError: rows may be in any order, and no column is known to name the series.
    """
    if columns.id is not None:
        return columns.id
    is_in_order = not found.path.is_dir() and len(table.frame) == len(found)
    if is_in_order and (reading.id_column == NONE or columns.named.issuperset(table.columns)):
        return None
    column = None if reading.id_column == NONE else _column_of_all_names(found, table, columns)
    if column is not None:
        return column
    order = "" if found.path.is_dir() else f", or say that they are in the order of the series: dataset.id_column={NONE}"
    raise UserError(
        f"{table.path}: got {len(table.frame)} rows without a known column of ids (its columns: "
        f"{', '.join(table.columns[:12])}), expected the names of the {len(found)} series of {found.path}; name their "
        f"column: dataset.id_column=NAME{order}"
    )


def _column_of_all_names(found: Collection, table: Table, columns: Columns) -> str | None:
    """Return a column without a known name whose cells name every series; numbers may be anything."""
    names = {stem(name) for name in found.names}
    if names == {str(k) for k in range(len(found))}:
        return None
    rest = [name for name in table.columns if name not in columns.named]
    return next((name for name in rest if names <= {stem(cell) for cell in texts(table, name) if cell is not None}), None)


def _picked(values: Sequence[str | None], rows: np.ndarray) -> list[str | None]:
    return [values[row] if row >= 0 else None for row in rows.tolist()]
