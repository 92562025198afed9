"""Series of a table: long, where a row is a step, or wide, where a row is a series."""

import re
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from itertools import count, takewhile

import numpy as np

from seqmem.errors import UserError, suggestion
from seqmem.io.collection import Collection, Layout, Reading
from seqmem.io.columns import Columns, of_table, split_name, splits_of
from seqmem.io.series_names import stem
from seqmem.io.tables import DURATIONS, Table, has_other_numbers, holds_dates, is_mostly_numbers, numbers, texts, times
from seqmem.io.unnamed_columns import as_in_training, has_columns_of_training, refuse_moved

WIDE_CHANNEL = "value"
"""Name of the channel of a wide table."""


def series_of(table: Table, reading: Reading) -> Collection:
    """Return the series of a table, without its file's checksum.

    Args:
        table: of a file.
        reading: keys, and what the series are for.

    Raises:
        UserError: the table cannot be understood, or a cell is wrong; the message names it.
    """
    table = as_in_training(table, reading)
    columns = of_table(table, reading)
    if columns.id is not None or columns.time is not None:
        table = table.without_empty()
    layout = reading.layout or layout_of(table, columns, reading)
    if layout == "wide":
        table = table.without_empty()
    channels, ignored = _channels(table, columns, reading)
    if layout == "wide" and reading.step_columns and not reading.channel_columns:
        channels, ignored = _steps_of_training(table, channels, ignored, reading)
    if layout == "wide" and reading.layout is None and columns.id is None:
        _refuse_doubtful_rows(table, columns, channels, ignored)
    if layout == "wide" and columns.time is not None and reading.time_column is None:
        columns = replace(columns, time=None)
    found = _long(table, columns, channels, reading) if layout == "long" else _wide(table, columns, channels, reading)
    durations = f", {DURATIONS}" if found.in_durations else ""
    useless = {*ignored, *columns.useless}
    shown = {
        "layout": f"{layout}, a row is a {'step' if layout == 'long' else 'series'}",
        "series id": columns.id,
        "time": (_hint_of_dates(table, ignored) if layout == "long" else None)
        if columns.time is None
        else f"{columns.time}{', dates in seconds' if found.is_dated else ''}{durations}",
        "label": ", ".join(columns.labels) or None,
        "group": columns.group,
        "split": columns.split,
        "ignored columns": ", ".join(name for name in table.columns if name in useless) or None,
    }
    roles = {**{name: text for name, text in shown.items() if text}, **found.roles}
    found = replace(found, roles=roles, layout=layout, step_columns=tuple(channels) if layout == "wide" else ())
    if table.has_header:
        return found
    optional = sorted((name for name in (*columns.labels, columns.group, columns.split) if name is not None), key=int)
    return replace(found, column_count=len(table.columns), optional_columns=tuple(optional))


def _steps_of_training(table: Table, channels: list[str], ignored: list[str], reading: Reading) -> tuple[list[str], list[str]]:
    """Return the columns of a wide table that are the steps of the training's, and those that are left out."""
    known = reading.step_columns
    if reading.column_count is None and table.has_header:
        return _in_training_order(table, channels, ignored, known)
    if reading.column_count is None and len(channels) != len(known):
        raise UserError(
            f"{table.path}: got {len(channels)} columns of numbers without a header, expected the {len(known)} steps "
            f"{known[0]} to {known[-1]} of the training; give it a header as that of the training"
        )
    if reading.column_count is not None and not reading.new:
        refuse_moved(table, reading)
    if not has_columns_of_training(table, reading):
        return channels, ignored
    further = {*channels, *ignored}.difference(known)
    return list(known), [name for name in table.columns if name in further]


def _in_training_order(
    table: Table, channels: Sequence[str], ignored: Sequence[str], known: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return the columns of a wide table in the order of another one's, and those that are left out.

    Series may be shorter than those of the other table. They may be longer if its columns are numbered, as ``t0`` to ``t9``.
    As many columns with other names are taken in their own order.

    Raises:
        UserError: a column is missing between others.
    """
    present = set(channels)
    if present.isdisjoint(known) and len(channels) == len(known):
        return list(channels), list(ignored)
    chosen = [*(name for name in known if name in present), *_continued(present, known)]
    if not chosen or chosen[: len(known)] != list(known[: len(chosen)]):
        lacking = next(name for name in known if name not in present)
        raise UserError(
            f"{table.path} has no column {lacking!r}{suggestion(lacking, channels)}; expected the steps {known[0]} to "
            f"{known[-1]} as in the training, or the first of them"
        )
    taken = set(chosen)
    return chosen, [*ignored, *(name for name in channels if name not in taken)]


def _continued(names: Set[str], known: Sequence[str]) -> list[str]:
    """Return names that continue the numbers of known ones, such as t10 and t11 after t0 to t9."""
    prefix, last = _numbered(known[-1])
    if last is None or any(_numbered(name)[0] != prefix for name in known):
        return []
    return list(takewhile(names.__contains__, (f"{prefix}{number}" for number in count(last + 1))))


def _numbered(name: str) -> tuple[str, int | None]:
    """Return a name without the number at its end, and the number."""
    prefix = name.rstrip("0123456789")
    return prefix, int(name[len(prefix) :]) if prefix != name else None


def _hint_of_dates(table: Table, ignored: Sequence[str]) -> str | None:
    """Return which column of texts holds dates, so that a user notices that they are not times; None if none does."""
    dates = next((name for name in ignored if holds_dates(table, name)), None)
    return dates and f"none; {dates} holds dates: dataset.time_column={dates}"


def layout_of(table: Table, columns: Columns, reading: Reading) -> Layout:
    """Return the layout of a table by the names of its series."""
    if columns.id is not None:
        ids = texts(table, columns.id)
        return "long" if len(set(ids)) < len(ids) or (columns.time is not None and len(ids) == 1) else "wide"
    if columns.time is not None:
        return "long"
    if reading.single and not table.has_header and len(table.columns) == 1:
        return "long"  # series of one step each would have nothing to learn
    return "long" if reading.single and table.has_header and not columns.labels else "wide"


def _refuse_doubtful_rows(table: Table, columns: Columns, channels: Sequence[str], ignored: Sequence[str]) -> None:
    """Refuse a table with a header whose rows are rather steps than series, so that it is not trained as nonsense.

    Raises:
        UserError: its channels do not differ by numbers alone, as steps do, or a column of texts repeats as names of series do.
    """
    counts = {name: len(set(texts(table, name))) for name in (*ignored, *([columns.group] if columns.group else []))}
    repeated = [name for name in counts if 1 < counts[name] < len(table.frame)]
    kinds = {re.sub(r"\d+", "", name) for name in channels}
    if table.has_header and (len(kinds) > 1 or not set(repeated).isdisjoint(ignored)):
        name = max(repeated, key=lambda each: counts[each]) if repeated else "NAME"
        raise UserError(
            f"{table.path}: got columns {', '.join(table.columns[:12])}, none of which has a name known for series or times; "
            f"expected dataset.id_column={name} (and dataset.time_column) if a row is a step, or dataset.layout=wide if it is "
            "a series"
        )


def _channels(table: Table, columns: Columns, reading: Reading) -> tuple[list[str], list[str]]:
    """Return the columns of values, and those that are left out because they are texts."""
    if reading.channel_columns:
        return list(reading.channel_columns), []
    named = columns.named
    rest = [name for name in table.columns if name not in named]
    channels = [name for name in rest if is_mostly_numbers(table, name)]
    taken = set(channels)
    ignored = [name for name in rest if name not in taken]
    for name in ignored:
        if has_other_numbers(table, name):
            _refuse_other_numbers(table, name)  # which are not left out as texts
    if not channels:
        raise UserError(
            f"{table.path} has no column of numbers besides {', '.join(sorted(columns.named)) or 'none'} (its columns: "
            f"{', '.join(table.columns[:12])}); name them: dataset.channel_columns=[x,y]"
        )
    return channels, ignored


def _refuse_other_numbers(table: Table, name: str) -> None:
    """Refuse a column of numbers with a thousands separator or the other decimal mark.

    Raises:
        UserError: naming the first of them.
    """
    try:
        numbers(table, name)
    except UserError as error:
        raise UserError(f"{error}; if this is a column of texts, name those of values: dataset.channel_columns=[x,y]") from None


def _long(table: Table, columns: Columns, channels: Sequence[str], reading: Reading) -> Collection:
    import pandas as pd

    _refuse_short_rows(table)
    rows = len(table.frame)
    values = np.stack([numbers(table, name) for name in channels], 1)
    if columns.id is None:
        codes, names = np.zeros(rows, np.int64), [stem(table.path.name)]
    else:
        ids = texts(table, columns.id)
        if None in ids:
            raise UserError(f"{table.place(ids.index(None), columns.id)}: got no series, expected its name in every row")
        codes, found = pd.factorize(np.array(ids, object))
        names = [str(name) for name in found]
    moments, unit = times(table, columns.time) if columns.time is not None else (None, "")
    order = np.lexsort((np.zeros(rows) if moments is None else moments, codes))
    lengths = np.bincount(codes, minlength=len(names))
    starts = np.cumsum(lengths) - lengths
    roles: dict[str, str] = {}
    origins = None
    if moments is not None:
        _refuse_equal_times(table, columns, codes[order], moments[order], order, names)
        in_file = np.argsort(codes, kind="stable")
        within = np.diff(codes[in_file]) == 0
        was_sorted = not (within & (np.diff(moments[in_file]) < 0)).any()
        roles = {} if was_sorted else {"order": "steps were sorted by time"}
        moments = moments[order]
        origins = moments[starts]
        moments = moments - np.repeat(origins, lengths)
    first = order[starts]

    def each(column: str | None, meaning: Callable[[str], str] = str) -> list[str | None] | None:
        return None if column is None else _one_each(table, column, codes, names, meaning)

    labels, targets = None, None
    if columns.labels and reading.target == "class":
        labels = each(columns.labels[0])
    elif columns.labels:
        targets = np.stack([_one_value_each(table, name, codes, names) for name in columns.labels], 1)
    return Collection(
        table.path,
        names,
        tuple(channels),
        values[order],
        starts,
        lengths,
        moments,
        unit,
        origins,
        labels,
        targets,
        columns.labels if targets is not None else (),
        each(columns.group),
        _splits(table, columns, each(columns.split, split_name), first.tolist()),
        roles=roles,
    )


def _wide(table: Table, columns: Columns, channels: Sequence[str], reading: Reading) -> Collection:
    rows = len(table.frame)
    if columns.time is not None:
        raise UserError(
            f"dataset.time_column: got {columns.time!r}, but each row of {table.path} is a series; expected null, or "
            "dataset.layout=long if each row is a step"
        )
    values = np.stack([numbers(table, name) for name in channels], 1)
    present = ~np.isnan(values)
    lengths = np.where(present.any(1), values.shape[1] - present[:, ::-1].argmax(1), 0)
    if (lengths == 0).any():
        raise UserError(f"{table.place(int((lengths == 0).argmax()))}: got a series without a value, expected at least one")
    ids = [str(k) for k in range(rows)] if columns.id is None else _ids(table, columns.id)
    targets = None
    if columns.labels and reading.target == "value":
        targets = np.stack([numbers(table, name) for name in columns.labels], 1)
    return Collection(
        table.path,
        ids,
        (WIDE_CHANNEL,),
        values[np.arange(values.shape[1]) < lengths[:, None]][:, None],
        np.cumsum(lengths) - lengths,
        lengths,
        labels=texts(table, columns.labels[0]) if columns.labels and reading.target == "class" else None,
        targets=targets,
        target_names=columns.labels if targets is not None else (),
        groups=None if columns.group is None else texts(table, columns.group),
        splits=None if columns.split is None else _splits(table, columns, texts(table, columns.split), list(range(rows))),
    )


def _ids(table: Table, column: str) -> list[str]:
    ids = texts(table, column)
    for row, name in enumerate(ids):
        if name is None:
            raise UserError(f"{table.place(row, column)}: got no series, expected its name in every row")
    return [str(name) for name in ids]


def _refuse_short_rows(table: Table) -> None:
    """Refuse rows of a text file that were cut; a wide table may have shorter series."""
    if table.counts is None:
        return
    counts = np.array(table.counts)
    if (counts < len(table.columns)).any():
        row = int((counts < len(table.columns)).argmax())
        raise UserError(
            f"{table.place(row)}: got {counts[row]} cells, expected {len(table.columns)} as in the first line; leave a missing "
            "cell empty, between its separators"
        )


def _refuse_equal_times(
    table: Table, columns: Columns, codes: np.ndarray, moments: np.ndarray, order: np.ndarray, names: Sequence[str]
) -> None:
    equal = (np.diff(codes) == 0) & (np.diff(moments) == 0)
    if equal.any():
        place = int(equal.argmax()) + 1
        row, before = int(order[place]), int(order[place - 1])
        cell = table.frame[columns.time].iloc[row]
        mend = "" if columns.id is not None else ", or name the column of the series' names: dataset.id_column=..."
        raise UserError(
            f"{table.place(row, str(columns.time))}: got the time '{cell}' of series {names[codes[place]]!r} a second time, "
            f"after {table.line(before)}; expected each time once{mend}"
        )


def _one_each(
    table: Table, column: str, codes: np.ndarray, names: Sequence[str], meaning: Callable[[str], str]
) -> list[str | None]:
    """Return a text of each series, whose rows agree in its meaning; rows may leave it empty."""
    found: list[str | None] = [None] * len(names)
    mend = "; name the column of the series' names: dataset.id_column=..." if len(names) == 1 else ""
    for row, (series, text) in enumerate(zip(codes.tolist(), texts(table, column), strict=True)):
        known = found[series]
        if text is None or known == text or (known is not None and meaning(known) == meaning(text)):
            continue
        if known is not None:
            raise UserError(
                f"{table.place(row, column)}: got '{text}' in series {names[series]!r}, expected '{known}' as in its "
                f"other rows; a series has one value of this column{mend}"
            )
        found[series] = text
    return found


def _one_value_each(table: Table, column: str, codes: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return a number of each series, whose rows agree in it; NaN if all are empty."""
    values = numbers(table, column)
    found = np.full(len(names), np.nan)
    present = ~np.isnan(values)
    last = np.flatnonzero(present)
    found[codes[last]] = values[last]
    wrong = present & (values != found[codes])
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"{table.place(row, column)}: got {values[row]:g} in series {names[codes[row]]!r}, and {found[codes[row]]:g} in "
            "its other rows; a series has one value of this column; to predict later values of it, give "
            "dataset.task=forecasting"
        )
    return found


def _splits(table: Table, columns: Columns, given: Sequence[str | None] | None, rows: Sequence[int]) -> list[str] | None:
    return None if given is None else splits_of(given, lambda k: table.place(rows[k], str(columns.split)))
