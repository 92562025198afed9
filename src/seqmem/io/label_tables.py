"""Labels, groups and splits of series from a table of their own."""

from collections import Counter
from collections.abc import Mapping, Sequence
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

    A row belongs to the series that its column of ids names, with or without a file's suffix and folder. A column whose cells
    name every series is one of ids, too. Without one, the rows are those of the series in their order, if no column is left
    that may name them; the files of a folder have no order of their own.

    Args:
        found: the series.
        table: with a row for each series; further rows are left out.
        reading: keys of the columns.

    Raises:
        UserError: a series has no row or several, or the table has no labels; new files may lack them.
    """
    reading = replace(
        reading, time_column=None, channel_columns=(), id_may_lack=found.roles.get("series id") == reading.id_column
    )
    columns = of_table(table, reading)
    if reading.new and not columns.labels:
        return found
    rows = _rows(found, table, columns, reading)
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
        "labels of": str(table.path),
        "label": ", ".join(columns.labels),
        "group": columns.group or "",
        "split": columns.split or "",
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


def _rows(found: Collection, table: Table, columns: Columns, reading: Reading) -> np.ndarray:
    """Return the row of each series; -1 for a series without a row, which only new files may have."""
    column = columns.id or (None if reading.id_column == NONE else _naming(found, table, columns))
    if column is None:
        if found.path.is_dir() or len(table.frame) != len(found) or _others(table, columns, reading):
            raise UserError(
                f"{table.path}: got {len(table.frame)} rows without a known column of ids (its columns: "
                f"{', '.join(table.columns[:12])}), expected the names of the {len(found)} series of {found.path}; name their "
                f"column: dataset.id_column=NAME{_or_in_order(found)}"
            )
        return np.arange(len(found))
    rows = _by_name(table, column)
    names = [stem(name) for name in found.names]
    last = _unambiguous({name: PurePosixPath(name).name for name in names})
    rows_of_last = _unambiguous({name: PurePosixPath(name).name for name in rows})
    places = []
    for name in names:
        place = rows.get(name, -1)
        if place < 0 and last[PurePosixPath(name).name] == name:
            place = rows.get(rows_of_last.get(PurePosixPath(name).name) or "", -1)
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


def _unambiguous(last_parts: Mapping[str, str]) -> dict[str, str | None]:
    """Return for each last part of a path the name that has it, None if several have."""
    counts = Counter(last_parts.values())
    return {part: name if counts[part] == 1 else None for name, part in last_parts.items()}


def _naming(found: Collection, table: Table, columns: Columns) -> str | None:
    """Return a column whose cells name every series, though its own name says nothing."""
    names = {stem(name) for name in found.names}
    rest = [name for name in table.columns if name not in columns.named]
    return next((name for name in rest if names <= {stem(cell) for cell in texts(table, name) if cell is not None}), None)


def _others(table: Table, columns: Columns, reading: Reading) -> bool:
    """Return whether columns without a meaning may name the series, unless a key says that none does."""
    return reading.id_column != NONE and not columns.named.issuperset(table.columns)


def _or_in_order(found: Collection) -> str:
    return "" if found.path.is_dir() else f", or say that its {len(found)} rows are in their order: dataset.id_column={NONE}"


def _picked(values: Sequence[str | None], rows: np.ndarray) -> list[str | None]:
    return [values[row] if row >= 0 else None for row in rows.tolist()]
