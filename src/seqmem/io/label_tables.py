"""Labels, groups and splits of series from a table of their own."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from seqmem.errors import UserError, nearest
from seqmem.io.collection import Collection, Reading
from seqmem.io.columns import Columns, of_table, splits_of
from seqmem.io.files import checksum
from seqmem.io.tables import Table, numbers, texts


def with_labels(found: Collection, table: Table, reading: Reading) -> Collection:
    """Return series with the labels, groups and splits of a table.

    A row belongs to the series that its column of ids names, with or without a file's suffix; without such a column, the rows
    are those of the series in their order.

    Args:
        found: the series.
        table: with a row for each series; further rows are left out.
        reading: keys of the columns.

    Raises:
        UserError: a series has no row or several, or the table has no labels.
    """
    reading = replace(reading, time_column=None, channel_columns=())
    columns = of_table(table, reading)
    rows = _rows(found, table, columns)
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
        targets, target_names = np.stack([numbers(table, name)[rows] for name in columns.labels], 1), columns.labels
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


def _rows(found: Collection, table: Table, columns: Columns) -> np.ndarray:
    """Return the row of each series."""
    count = len(table.frame)
    if columns.id is None:
        if count != len(found):
            raise UserError(
                f"{table.path}: got {count} rows without a column of ids, expected {len(found)}, one for each series of "
                f"{found.path}; or name the column of the ids: dataset.id_column=NAME"
            )
        return np.arange(count)
    ids = texts(table, columns.id)
    places: dict[str, int] = {}
    for row, name in enumerate(ids):
        if name is None:
            continue
        if name in places:
            raise UserError(f"{table.place(row, columns.id)}: got series {name!r} a second time, expected each once")
        places[name] = row
    stems = {Path(name).name.partition(".")[0]: row for name, row in places.items()}
    rows = []
    for name in found.names:
        place = places.get(name, stems.get(name))
        if place is None:
            near = nearest(name, list(places)[:1000])
            hint = f"; did you mean {near!r}?" if near else ""
            raise UserError(f"{table.path} has no row for the series {name!r} of {found.path} in column {columns.id}{hint}")
        rows.append(place)
    return np.array(rows)


def _picked(values: Sequence[str | None], rows: np.ndarray) -> list[str | None]:
    return [values[row] for row in rows.tolist()]
