"""Files of a user by the keys of ``dataset=files``: how they are read, and the checks of their labels."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from seqmem.errors import UserError
from seqmem.io.collection import Collection, Reading, Target, Trained, joined
from seqmem.io.sources import read_source
from seqmem.io.values import is_number

TARGETS: dict[str, Target] = {
    "classification": "class",
    "regression": "value",
    "forecasting": "none",
    "reconstruction": "class",
}
"""What a label is in each task."""


def reading_of(arguments: Mapping[str, Any], new: bool = False) -> Reading:
    """Return how the files of ``dataset=files`` are read.

    Args:
        arguments: section ``dataset`` of a checked config.
        new: the files are new ones, which may have no labels.
    """
    labels = arguments["label_column"]
    return Reading(
        target=TARGETS[arguments["task"]],
        label_columns=() if labels is None else (labels,) if isinstance(labels, str) else tuple(labels),
        channel_columns=tuple(arguments["channel_columns"]),
        single=arguments["task"] == "forecasting",
        new=new,
        needs_labels=arguments["task"] in ("classification", "regression"),
        **{
            name: arguments[name]
            for name in (
                "id_column",
                "time_column",
                "group_column",
                "split_column",
                "layout",
                "labels_path",
                "header",
                "encoding",
            )
        },
        in_memory=arguments["in_memory"],
    )


def read_files(arguments: Mapping[str, Any], trained: Trained | None = None) -> Collection:
    """Read the file or folder of ``dataset.path``, and those of validation and test if there are any.

    Args:
        arguments: section ``dataset`` of a checked config.
        trained: the columns of a trial's table; None for a training.

    Raises:
        UserError: a file cannot be read, or the files do not fit each other.
    """
    reading = reading_of(arguments)
    reading = reading if trained is None else reading.with_columns_of(trained)
    if len(reading.label_columns) > 1 and reading.target != "value":
        raise UserError(
            f"dataset.label_column: got [{', '.join(reading.label_columns)}] with dataset.task={arguments['task']}, expected "
            "one column; several are the values of a regression"
        )
    parts = [read_source(arguments["path"], reading)]
    for split in ("validation", "test"):
        path = arguments[f"{split}_path"]
        if path is not None:
            part = read_source(path, reading.with_columns_of(trained or parts[0]), f"dataset.{split}_path")
            files = {f"{split}: {name}": sum_ for name, sum_ in part.files.items()}
            parts.append(replace(part, splits=[split] * len(part), files=files))
    found = joined(parts[0].path, parts)
    if reading.channel_columns:
        found = found.with_channels(reading.channel_columns)
    return found


def check_labels(found: Collection, task: str, learns: bool = True) -> None:
    """Refuse series without what the task predicts, and labels that cannot be learned.

    Args:
        found: the series.
        task: what is predicted.
        learns: refuse a single class, and a class for each series.

    Raises:
        UserError: naming a series.
    """
    noun = {"classification": "label", "regression": "value to predict"}.get(task)
    if noun is None:
        return
    if found.labels is None and found.targets is None:
        raise UserError(
            f"dataset.label_column: {found.path} has no {noun} that is found by its name ({_content(found)}); expected the "
            f"column or array of the labels, or their table: dataset.labels_path=labels.csv{_only_column(found)}"
        )
    missing = (
        np.array([label is None for label in found.labels or []]) if found.targets is None else np.isnan(found.targets).any(1)
    )
    if missing.any():
        k = int(missing.argmax())
        raise UserError(
            f"{found.path}: got no {noun} of series {found.names[k]!r} ({int(missing.sum())} of {len(found)} have none), "
            "expected one for each; label them, or remove them and predict them later: seqmem predict TRIAL FILE"
        )
    if found.targets is not None and np.isinf(found.targets).any():
        k = int(np.isinf(found.targets).any(1).argmax())
        raise UserError(
            f"{found.path}: got an infinite value to predict of series {found.names[k]!r}, expected a finite number"
        )
    labels = set(found.labels or [])
    if not learns:
        return
    if task == "classification" and len(labels) == len(found) > 2 and all(is_number(label or "") for label in labels):
        raise UserError(
            f"dataset.label_column: got {len(labels)} different numbers for {len(found)} series in {found.path}, expected "
            "classes of several series each; did you mean dataset.task=regression?"
        )
    if task == "classification" and len(labels) < 2:
        raise UserError(
            f"dataset.label_column: got a single class {(found.labels or [''])[0]!r} in {found.path}, expected at least 2 "
            "classes"
        )


def _only_column(found: Collection) -> str:
    """Return a question that names the column of texts, if there is one alone."""
    others = str(found.roles.get("ignored columns") or "")
    return f"; did you mean dataset.label_column={others}?" if others and "," not in others else ""


def _content(found: Collection) -> str:
    """Return the channels and the columns of texts, among which the label may be."""
    others = found.roles.get("ignored columns")
    more = ", ..." if len(found.channels) > 8 else ""
    return f"channels: {', '.join(found.channels[:8])}{more}" + (f"; other columns: {others}" if others else "")
