"""Columns of a table by what they mean, as keys name them or their names suggest."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from seqmem.io.collection import Reading
from seqmem.io.tables import Table, texts

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
    "file",
    "filename",
)
TIMES = ("time", "t", "timestamp", "time_stamp", "datetime", "date", "ds", "step", "seconds")
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
    """

    id: str | None
    time: str | None
    labels: tuple[str, ...]
    group: str | None
    split: str | None

    @property
    def named(self) -> set[str]:
        """All of these columns."""
        return {name for name in (self.id, self.time, *self.labels, self.group, self.split) if name is not None}


def guessed(names: Sequence[str], reading: Reading) -> Columns:
    """Return the columns by their names; a column that a key names has that meaning alone."""
    given = {reading.id_column, reading.time_column, reading.group_column, reading.split_column}
    taken = {*given, *reading.label_columns, *reading.channel_columns}
    plain = {re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_"): name for name in reversed(names) if name not in taken}

    def first(choices: Sequence[str]) -> str | None:
        return next((plain.pop(choice) for choice in choices if choice in plain), None)

    if "x" in plain:
        plain.pop("y", None)  # two channels
    identity = reading.id_column or first(IDS)
    time = reading.time_column or first(TIMES)
    labels = reading.label_columns
    if not labels and reading.target != "none":
        names_of = {"class": CLASSES if reading.needs_labels else CLEAR, "value": VALUES}
        found = first(names_of[reading.target])
        labels = () if found is None else (found,)
    split = reading.split_column or first(SPLIT)
    group = reading.group_column or first(GROUPS)
    if identity is None and group is not None and time is not None and reading.group_column is None:
        identity, group = group, None
    return Columns(identity, time, labels, group, split)


def text_columns(names: Sequence[str], reading: Reading) -> set[str]:
    """Return the columns whose cells are texts."""
    columns = guessed(names, reading)
    labels = columns.labels if reading.target == "class" else ()
    return {name for name in (columns.id, columns.group, columns.split, *labels) if name is not None}


def of_table(table: Table, reading: Reading) -> Columns:
    """Return the columns of a table by their meaning.

    Raises:
        UserError: a key names a column that does not exist.
    """
    for key in ("id_column", "time_column", "group_column", "split_column"):
        if getattr(reading, key) is not None and not (reading.new and key in ("group_column", "split_column")):
            table.require(getattr(reading, key), key)
    if not reading.new:
        for name in reading.label_columns:
            table.require(name, "label_column")
    for name in reading.channel_columns:
        table.require(name, "channel_columns")
    columns = guessed(table.columns, reading)
    if reading.new:
        present = set(table.columns)
        labels = columns.labels if set(columns.labels) <= present else ()
        return Columns(columns.id, columns.time, labels, None, None)
    if reading.split_column is None and columns.split is not None:
        found = {name.lower() for name in texts(table, columns.split) if name is not None}
        if not found or not found <= SPLIT_NAMES.keys():
            return Columns(columns.id, columns.time, columns.labels, columns.group, None)
    return columns
