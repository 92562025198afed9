"""Columns of further files without a header, by the numbers that they have in the training's file."""

from collections.abc import Sequence
from dataclasses import replace

from seqmem.errors import UserError
from seqmem.io.collection import Reading
from seqmem.io.columns import NONE, as_number, text_columns
from seqmem.io.tables import Table, texts
from seqmem.io.values import is_number, shortened


def as_in_training(table: Table, reading: Reading) -> Table:
    """Return a new table whose columns have the numbers of the training's file, if that has no header.

    New files may lack the columns of labels, groups and splits, so that further columns have smaller numbers. Their number of
    columns says so. Where the number is a different one, since series are shorter or longer, labels may still be recognised
    as classes of the training.

    Raises:
        UserError: the table has a header; or it is not clear which columns it has.
    """
    count, optional = reading.column_count, reading.optional_columns
    if count is None or not reading.new or (reading.layout != "long" and not optional):
        return table
    if table.has_header:
        raise UserError(
            f"{table.path}: got columns with names ({', '.join(table.columns[:4])}), expected a file without a header, as that "
            "of the training, whose columns are numbered; remove its first line"
        )
    if not _has_labels(table, reading, count):
        return replace(table, frame=table.frame.set_axis(_without_optional(len(table.columns), optional), axis=1))
    return table


def has_columns_of_training(table: Table, reading: Reading) -> bool:
    """Return whether a table has all columns of the training's, neither with a header, except optional ones."""
    if table.has_header or reading.column_count is None:
        return False
    return {*table.columns, *reading.optional_columns} == {str(k) for k in range(reading.column_count)}


def text_columns_in_training(names: Sequence[str], reading: Reading) -> set[str]:
    """Return the columns whose cells are texts, whether or not a table without a header has labels, groups and splits."""
    found = text_columns(names, reading)
    if reading.column_count is None or not reading.new:
        return found
    numbers = _without_optional(len(names), reading.optional_columns)
    as_text = text_columns(numbers, reading)
    return found | {name for name, number in zip(names, numbers, strict=True) if number in as_text}


def _without_optional(count: int, optional: Sequence[str]) -> list[str]:
    """Return the numbers of columns without those of labels, groups and splits."""
    return [name for name in map(str, range(count + len(optional))) if name not in optional][:count]


def refuse_moved(table: Table, reading: Reading) -> None:
    """Refuse a wide table of a different number of columns, if its labels, groups or splits do not precede the values.

    Raises:
        UserError: their numbers would be those of values.
    """
    count = reading.column_count
    if table.has_header or count in (None, len(table.columns)) or not reading.optional_columns or _precede(reading):
        return
    raise UserError(
        f"{table.path}: got {len(table.columns)} columns without a header, expected {count} as in the training, where values "
        f"precede {_shown(reading)}; {_remedy(len(table.columns), count)}"
    )


def _has_labels(table: Table, reading: Reading, count: int) -> bool:
    """Return whether a table has the columns of labels, groups and splits.

    Args:
        table: without a header.
        reading: keys, and the columns of the training.
        count: the training's number of columns.
    """
    width, bare = len(table.columns), count - len(reading.optional_columns)
    label = next((name for name in reading.label_columns if name in reading.optional_columns), None)
    given = [text for text in texts(table, label) if text] if label in table.columns and reading.target == "class" else []
    classes = {as_number(name) for name in reading.classes}
    known = [text for text in given if as_number(text) in classes]
    if width == count:
        if given and not known:
            row = texts(table, str(label)).index(given[0])
            raise UserError(
                f"{table.place(row, str(label))}: got the label '{shortened(given[0])}', expected a class of the training "
                f"({', '.join(reading.classes[:8])}); a file without labels has {bare} columns, or empty cells in this one"
            )
        return True
    is_text = any(not is_number(text) for text in known)
    empty = next((name for name in reading.optional_columns if name in table.columns and not any(texts(table, name))), None)
    if width == bare and empty is not None:
        raise UserError(
            f"{table.path}: got {width} columns without a header, of which column {empty} is empty; expected {count} as in the "
            f"training, or {bare} without {_shown(reading)}"
        )
    if width == bare and (not given or len(known) < len(given)):
        return False
    if width == bare and not is_text:
        raise UserError(
            f"{table.path}: got {width} columns without a header, of which column {label} may have values or labels; expected "
            f"{count} columns as in the training, with empty cells in {_shown(reading)} if there are no labels"
        )
    if given and reading.layout == "wide" and reading.optional_columns == (label,) and _precede(reading):
        if not known:
            return False
        if is_text and len(known) == len(given):
            return True
    without = f", or {bare} without {_shown(reading)}" if reading.optional_columns else ""
    raise UserError(
        f"{table.path}: got {width} columns without a header, expected {count} as in the training{without}; "
        f"{_remedy(width, count)}"
    )


def _remedy(width: int, count: int) -> str:
    """Return what to do with a table of a different number of columns."""
    return "fill up its rows with empty cells" if width < count else f"remove columns beyond {count}"


def _precede(reading: Reading) -> bool:
    """Return whether the columns of series, labels, groups and splits precede the values, and nothing else does."""
    first = {*reading.optional_columns, *([] if reading.id_column in (None, NONE) else [reading.id_column])}
    rest = tuple(str(k) for k in range(len(first), reading.column_count or 0))
    return first == {str(k) for k in range(len(first))} and reading.step_columns == rest


def _shown(reading: Reading) -> str:
    names = reading.optional_columns
    return f"column{'s' if len(names) > 1 else ''} {', '.join(names)} (labels, groups or splits)"
