"""Columns of a table by what they mean, as keys name them or their names suggest."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from seqmem.errors import UserError
from seqmem.io.collection import Reading
from seqmem.io.tables import Table, texts
from seqmem.io.values import is_number

IDS = (
    "id",
    "series",
    "series_id",
    "sample",
    "sample_id",
    "sequence",
    "sequence_id",
    "seq",
    "seq_id",
    "case",
    "case_id",
    "unit",
    "unit_id",
    "unique_id",
    "item_id",
    "recording",
    "recording_id",
    "trial",
    "trial_id",
    "episode",
    "episode_id",
    "file",
    "file_id",
    "filename",
)
TIMES = ("time", "timestamp", "time_stamp", "datetime", "date", "ds", "t", "step", "seconds")
CLASSES = ("label", "labels", "class", "target", "y", "category", "outcome", "activity")
CLEAR = ("label", "labels", "class", "category", "activity")
VALUES = ("target", "y", "label", "outcome")
GROUPS = (
    "group",
    "subject",
    "subject_id",
    "patient",
    "patient_id",
    "participant",
    "participant_id",
    "person",
    "user",
    "user_id",
)
SPLIT = ("split", "subset", "partition", "set", "part")
"""Names of columns that are understood without a key, the better ones first, in small letters with _ for other signs."""

NAMES = frozenset({*IDS, *TIMES, *CLASSES, *VALUES, *GROUPS, *SPLIT})
"""All of them."""

NONE = "none"
"""Value of a key for a table without such a column, whatever its names suggest."""

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""Split of each name that a column of splits may hold."""


@dataclass(frozen=True)
class Columns:
    """Names of columns by what they mean; None or empty for none.

    Attributes:
        id: names the series of a row.
        time: times of steps.
        labels: classes or values of series.
        group: groups of series.
        split: splits of series.
        useless: neither these nor channels.
    """

    id: str | None
    time: str | None
    labels: tuple[str, ...]
    group: str | None
    split: str | None
    useless: tuple[str, ...] = ()

    @property
    def named(self) -> set[str]:
        """All of these columns."""
        named = (self.id, self.time, *self.labels, self.group, self.split, *self.useless)
        return {name for name in named if name is not None}


def guessed(names: Sequence[str], reading: Reading) -> Columns:
    """Return the columns by their names; a column that a key names has that meaning alone.

    A column that has a meaning by its name is useless if a key declares that there is none, if another column has that
    meaning, or if labels are elsewhere. ``y`` and ``t`` are channels then.
    """
    given = {reading.id_column, reading.time_column, reading.group_column, reading.split_column}
    taken = {*given, *reading.label_columns, *reading.channel_columns}
    useless: list[str] = []
    rest = {plain(name): name for name in reversed(names) if name not in taken}

    def first(choices: Sequence[str], key: str | None = None) -> str | None:
        if key is not None and key != NONE:
            return key
        found = next((rest.pop(choice) for choice in choices if choice in rest), None)
        if key == NONE and found is not None:
            useless.append(found)
        return None if key == NONE else found

    if "x" in rest:
        rest.pop("y", None)  # two channels
    identity = first(IDS, reading.id_column)
    time = first(TIMES, reading.time_column)
    labels = reading.label_columns
    names_of = {"class": CLASSES if reading.needs_labels else CLEAR, "value": VALUES, "none": ()}
    if labels in ((), (NONE,)) and not reading.labels_elsewhere:
        found = first(names_of[reading.target], *labels)
        labels = () if found is None else (found,)
    split = first(SPLIT, reading.split_column)
    group = first(GROUPS, reading.group_column)
    if identity is None and group is not None and time is not None and reading.group_column is None:
        identity, group = group, None
    known = {*names_of[reading.target], *(CLASSES if reading.needs_labels else ()), *IDS, *TIMES, *GROUPS} - {"y", "t"}
    useless += [name for key, name in rest.items() if key in known]
    return Columns(identity, time, labels, group, split, tuple(useless))


def text_columns(names: Sequence[str], reading: Reading) -> set[str]:
    """Return the columns whose cells are texts, and those that are not read since keys name the channels."""
    columns = guessed(names, _with_own_id(names, reading))
    labels = columns.labels if reading.target == "class" else ()
    found = {name for name in (columns.id, columns.group, columns.split, *labels) if name is not None}
    if reading.channel_columns:
        found.update(set(names) - {*reading.channel_columns, columns.time, *columns.labels, ""})
    return found


def plain(name: str) -> str:
    """Return a name in small letters, with _ for other signs."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _with_own_id(names: Sequence[str], reading: Reading) -> Reading:
    """Return a reading whose key names a column of ids only if the table has it, where it may be that of another table."""
    lacks = reading.id_may_lack and reading.id_column not in (None, NONE, *names)
    return replace(reading, id_column=None) if lacks else reading


def of_table(table: Table, reading: Reading) -> Columns:
    """Return the columns of a table by their meaning.

    Raises:
        UserError: a key names a column that does not exist.
    """
    reading = _with_own_id(table.columns, reading)
    for key in ("id_column", "time_column", "group_column", "split_column"):
        if getattr(reading, key) not in (None, NONE) and not (reading.new and key in ("group_column", "split_column")):
            table.require(getattr(reading, key), key)
    if not reading.new:
        for name in reading.label_columns if reading.label_columns != (NONE,) else ():
            table.require(name, "label_column")
    for name in reading.channel_columns:
        table.require(name, "channel_columns")
    columns = guessed(table.columns, reading)
    if reading.new:
        present = set(table.columns)
        labels = columns.labels if set(columns.labels) <= present else ()
        optional: set[str] = set()
        if reading.column_count is not None and not table.has_header:
            optional = present.intersection(reading.optional_columns)
            labels = labels if set(labels) <= optional else ()
        elif labels and not table.has_header:
            # The column of the labels may be absent, and that of its number one of values.
            known = {as_number(name) for name in reading.classes}
            given = {as_number(text) for text in texts(table, labels[0]) if text is not None}
            labels = labels if given <= known else ()
        optional |= present.intersection(name for name in (columns.group, columns.split) if name is not None)
        useless = sorted(optional.difference(labels))
        return replace(columns, labels=labels, group=None, split=None, useless=(*columns.useless, *useless))
    if reading.split_column is None and columns.split is not None and not names_splits(table, columns.split):
        return replace(columns, split=None)
    return columns


def names_splits(table: Table, column: str) -> bool:
    """Return whether most cells of a column that are not empty are names of splits. A different name is then an error."""
    found = [name.lower() in SPLIT_NAMES for name in texts(table, column) if name is not None]
    return 2 * sum(found) > len(found)


def split_name(name: str) -> str:
    """Return the split that a name means, in any case; the name itself if it is not one of :data:`SPLIT_NAMES`."""
    return SPLIT_NAMES.get(name.lower(), name)


def splits_of(names: Sequence[str | None], place: Callable[[int], str]) -> list[str]:
    """Return the split of each series; empty for None, where it is to be drawn.

    Args:
        names: (n) of splits, in any case.
        place: returns where the name of an index is, for a message.

    Raises:
        UserError: a name is not in :data:`SPLIT_NAMES`.
    """
    for k, name in enumerate(names):
        if name is not None and name.lower() not in SPLIT_NAMES:
            raise UserError(f"{place(k)}: got '{name}', expected train, validation or test, or an empty cell")
    return ["" if name is None else split_name(name) for name in names]


def as_number(name: str) -> str | float:
    """Return a class as a number if it is one."""
    return float(name) if is_number(name) else name
