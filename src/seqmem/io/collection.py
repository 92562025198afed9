"""Series of a user's files: their values, times, labels, groups and splits, in whatever format they are kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from seqmem.errors import UserError, suggestion
from seqmem.io.tables import DURATIONS

Layout = Literal["long", "wide"]
Target = Literal["class", "value", "none"]


class Rows(Protocol):
    """Rows (N, ...) of numbers, in memory or in a file: an array, or anything with slices of consecutive rows."""

    def __len__(self) -> int:
        """Return N."""

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return consecutive rows."""


class Trained(Protocol):
    """Columns of a training's table: attributes of a :class:`Collection`, or what is kept of it."""

    @property
    def step_columns(self) -> tuple[str, ...]: ...

    @property
    def column_count(self) -> int | None: ...

    @property
    def optional_columns(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Reading:
    """How files are read; None or empty for what is to be guessed.

    Attributes:
        target: a label is a class, one or several values, or not needed.
        id_column: names the series of a row.
        id_may_lack: a table may lack the column that ``id_column`` names, since it is that of another one.
        time_column: times of the steps.
        label_columns: the class or the values of a series.
        channel_columns: channels, in this order.
        group_column: group of a series.
        split_column: split of a series.
        layout: a row is a step ("long") or a series ("wide").
        labels_path: table of labels for files that have none.
        labels_elsewhere: labels, groups and splits come from there or from the names of folders, and not from this file.
        header: whether text files have a header.
        encoding: of text files.
        in_memory: read large files as a whole (true) or as they are needed (false).
        single: a table without ids and labels is a single series.
        one_series: a file has one series, so that the rows of an array (T,) or (T, C) are its steps.
        new: the files are new ones, which may have no labels.
        needs_labels: without labels the files are useless; otherwise only columns whose names are clear are taken for labels.
        classes: those of the training, by which the labels of a new file without a header are recognised.
        step_columns: those of the training's wide table, in whose order the steps of a further one are.
        column_count: number of columns of the training's table without a header; None for others.
        optional_columns: its labels, groups and splits, which new files may lack.
    """

    target: Target = "class"
    id_column: str | None = None
    id_may_lack: bool = False
    time_column: str | None = None
    label_columns: tuple[str, ...] = ()
    channel_columns: tuple[str, ...] = ()
    group_column: str | None = None
    split_column: str | None = None
    layout: Layout | None = None
    labels_path: str | None = None
    labels_elsewhere: bool = False
    header: bool | None = None
    encoding: str = "utf-8"
    in_memory: bool | None = None
    single: bool = False
    one_series: bool = False
    new: bool = False
    needs_labels: bool = True
    classes: tuple[str, ...] = ()
    step_columns: tuple[str, ...] = ()
    column_count: int | None = None
    optional_columns: tuple[str, ...] = ()

    def with_columns_of(self, training: "Trained") -> "Reading":
        """Return how further files than those of a training are read."""
        return replace(
            self,
            step_columns=training.step_columns,
            column_count=training.column_count,
            optional_columns=training.optional_columns,
        )

    def without_labels(self) -> "Reading":
        """Return how files are read whose labels, groups and splits are elsewhere."""
        return replace(self, labels_elsewhere=True, label_columns=(), group_column=None, split_column=None, id_may_lack=True)


@dataclass(frozen=True)
class Collection:
    """n series of C channels.

    Attributes:
        path: file or folder.
        names: of the series.
        channels: names of the channels.
        values: (N, C) the steps of all series, NaN for a missing value.
        starts: (n,) int64 the first row of each series in ``values``.
        lengths: (n,) int64 its number of rows.
        times: (N,) float64, increasing within a series; None for evenly spaced steps.
        time_unit: "seconds" for dates, "seconds in UTC" for those with an offset, "durations in seconds"; else empty or "unit
            of the file".
        origins: (n,) float64 the time of each series' first step, from which ``times`` count; since 1970 for dates. None
            without times.
        labels: (n) the class of each series, None where it is not known; None without labels.
        targets: (n, D) the values of each series; None without values.
        target_names: of the D values.
        groups: (n) group of each series; None without groups.
        splits: (n) "train", "validation", "test", or empty where it is to be drawn; None without splits.
        files: sha256 of each file by its name.
        roles: what was understood of the files, by what it is about, for people.
        in_memory: ``values`` is an array.
        layout: of a table; None for other files.
        step_columns: names of the columns of values of a wide table.
        column_count: number of columns of a table without a header; None for others.
        optional_columns: those of them that have labels, groups and splits.
    """

    path: Path
    names: list[str]
    channels: tuple[str, ...]
    values: Rows
    starts: np.ndarray
    lengths: np.ndarray
    times: Rows | None = None
    time_unit: str = ""
    origins: np.ndarray | None = None
    labels: list[str | None] | None = None
    targets: np.ndarray | None = None
    target_names: tuple[str, ...] = ()
    groups: list[str | None] | None = None
    splits: list[str] | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)
    in_memory: bool = True
    layout: Layout | None = None
    step_columns: tuple[str, ...] = ()
    column_count: int | None = None
    optional_columns: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def is_dated(self) -> bool:
        """Whether the times are dates, in seconds."""
        return self.time_unit.startswith("seconds")

    @property
    def in_durations(self) -> bool:
        """Whether the times are durations, in seconds."""
        return self.time_unit == DURATIONS

    def read(self, series: int) -> np.ndarray:
        """Return the values (T, C) of a series."""
        start = int(self.starts[series])
        return self.values[start : start + int(self.lengths[series])]

    def refuse_infinite(self, values: np.ndarray, begin: int = 0) -> None:
        """Refuse infinite values.

        Args:
            values: (n, C) consecutive rows of ``values``.
            begin: number of the first of these rows.

        Raises:
            UserError: a value is infinite; the message names the series, the step and the channel.
        """
        infinite = np.isinf(values)
        if infinite.any():
            row, channel = np.argwhere(infinite)[0].tolist()
            series = int(np.searchsorted(self.starts, begin + row, side="right")) - 1
            raise UserError(
                f"{self.path}, series {self.names[series]!r}, step {begin + row - int(self.starts[series])}, channel "
                f"{self.channels[channel]}: got an infinite value, expected a finite number, or NaN for a missing one"
            )

    def with_channels(self, channels: Sequence[str]) -> "Collection":
        """Return the collection with these channels, in this order.

        Raises:
            UserError: one is missing.
        """
        if tuple(channels) == self.channels:
            return self
        for channel in channels:
            if channel not in self.channels:
                raise UserError(f"{self.path} has no channel {channel!r}{suggestion(channel, self.channels)}")
        places = [self.channels.index(channel) for channel in channels]
        values = self.values[:, places] if isinstance(self.values, np.ndarray) else Picked(self.values, places)
        return replace(self, channels=tuple(channels), values=values)


class Picked:
    """Some columns of rows, in a given order."""

    def __init__(self, rows: Rows, columns: list[int]):
        self._rows, self._columns = rows, columns

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self._rows[rows][:, self._columns]


class Chained:
    """Rows of several sources one after the other; a slice lies in one of them."""

    def __init__(self, parts: Sequence[Rows]):
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, rows: slice) -> np.ndarray:
        part = int(np.searchsorted(self._ends, rows.start, side="right"))
        before = int(self._ends[part]) - len(self._parts[part])
        return self._parts[part][rows.start - before : rows.stop - before]


def joined(path: Path, parts: Sequence[Collection]) -> Collection:
    """Return the series of several collections as one.

    Args:
        path: of the whole, for messages.
        parts: with the same channels, in any order.

    Raises:
        UserError: they differ in their channels, in the unit of their times, or in whether they have times, labels, values or
            groups.
    """
    first = parts[0]
    if not parts[1:]:
        return replace(first, path=path)
    for part in parts[1:]:
        _refuse_other_channels(first, part)
        for name in ("times", "labels", "targets", "groups"):
            if (getattr(first, name) is None) != (getattr(part, name) is None):
                has, lacks = (first, part) if getattr(part, name) is None else (part, first)
                raise UserError(
                    f"{lacks.path} has no {_nouns[name]}, and {has.path} has; expected them in all files or in none"
                )
        if _kind_of_times(part) != _kind_of_times(first):
            dates, others = (part, first) if part.is_dated else (first, part)
            raise UserError(
                f"{others.path}: got {_kind_of_times(others)} as times, and {_kind_of_times(dates)} in {dates.path}; expected "
                "the same kind of times in all files"
            )
    parts = [part.with_channels(first.channels) for part in parts]
    is_regular = len({part.column_count for part in parts}) == 1
    shifts = np.cumsum([0, *(len(part.values) for part in parts[:-1])])
    return replace(
        first,
        path=path,
        names=[name for part in parts for name in part.names],
        values=_chained([part.values for part in parts]),
        starts=np.concatenate([part.starts + shift for part, shift in zip(parts, shifts, strict=True)]),
        lengths=np.concatenate([part.lengths for part in parts]),
        times=None if first.times is None else _chained([part.times for part in parts if part.times is not None]),
        origins=None if first.times is None else np.concatenate([part.origins for part in parts if part.origins is not None]),
        labels=None if first.labels is None else [label for part in parts for label in part.labels or []],
        targets=None if first.targets is None else np.concatenate([p.targets for p in parts if p.targets is not None]),
        groups=None if first.groups is None else [group for part in parts for group in part.groups or []],
        splits=_joined_splits(parts),
        files={name: sum_ for part in parts for name, sum_ in part.files.items()},
        in_memory=all(part.in_memory for part in parts),
        column_count=first.column_count if is_regular or first.layout == "wide" else None,
    )


def _kind_of_times(found: Collection) -> str:
    return _kinds_of_times.get(found.time_unit, "numbers")


_kinds_of_times = {
    "seconds": "dates without an offset from UTC",
    "seconds in UTC": "dates with an offset from UTC",
    DURATIONS: "durations",
}
_nouns = {"times": "times", "labels": "labels", "targets": "values to predict", "groups": "groups"}


def _refuse_other_channels(first: Collection, part: Collection) -> None:
    if set(part.channels) != set(first.channels):
        lacking = [name for name in first.channels if name not in part.channels]
        further = [name for name in part.channels if name not in first.channels]
        what = f"no channel {lacking[0]!r}" if lacking else f"a further channel {further[0]!r}"
        raise UserError(f"{part.path}: got {what}, expected the channels of {first.path} ({', '.join(first.channels[:8])})")


def _chained(rows: Sequence[Rows]) -> Rows:
    if all(isinstance(part, np.ndarray) for part in rows):
        return np.concatenate([np.asarray(part) for part in rows])
    return Chained(rows)


def _joined_splits(parts: Sequence[Collection]) -> list[str] | None:
    if all(part.splits is None for part in parts):
        return None
    return [split for part in parts for split in part.splits or [""] * len(part)]
