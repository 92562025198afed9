"""Splits of a user's series by the keys of ``dataset=files``: by series or by time, whole or in windows."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from seqmem.data.partition import partition
from seqmem.data.segments import Segments, by_time
from seqmem.data.splits import SPLITS, Split
from seqmem.errors import DataWarning, UserError
from seqmem.io.collection import Collection

FEW = 10
"""Series below which a forecasting data set is split by time, unless ``split_by`` says otherwise."""


def parts_of(
    given: Mapping[str, Any], found: Collection, classes: np.ndarray | None
) -> tuple[dict[Split, Segments], dict[Split, Segments], dict[str, str]]:
    """Split the series.

    Args:
        given: section ``dataset`` of a checked config.
        found: the series.
        classes: (n,) the class of each series; None without classes.

    Returns:
        For each split, the segments of the series that belong to it; for each split, its sequences, which are these segments
        or windows of them; and lines of the summary about both.

    Raises:
        UserError: there are too few series or steps for the splits, or keys exclude each other.
    """
    horizon = given["horizon"] if given["task"] == "forecasting" else 0
    fractions: dict[Split, float] = {split: given[f"{split}_fraction"] for split in ("validation", "test")}
    if sum(fractions.values()) >= 1:
        raise UserError(
            f"dataset.test_fraction: got {fractions['test']} with validation_fraction={fractions['validation']}, expected "
            "a sum below 1"
        )
    _refuse_short(found, horizon)
    is_few = given["task"] == "forecasting" and len(found) < FEW and found.splits is None
    by = given["split_by"] or ("time" if is_few else "series")
    window = given["window"]
    if by == "time":
        if found.splits is not None:
            raise UserError(
                "dataset.split_by: got time with given splits, expected series, or no split_column, validation_path and "
                "test_path"
            )
        parts = by_time(found.lengths, fractions, found.names, horizon)
        window = window or max(100, 4 * horizon)
        notes = {"split by": "time, the first steps of each series for training and the last for the test"}
    else:
        groups = (
            None if found.groups is None else [name if name is not None else f"\0{k}" for k, name in enumerate(found.groups)]
        )
        stratified = classes if given["task"] == "classification" else None
        rows = partition(len(found), fractions, given["split_seed"], stratified, groups, found.splits)
        parts = {split: Segments.whole(rows[split], found.lengths) for split in SPLITS}
        notes = {"split by": _how_split(found, stratified is not None, given)}
        if given["task"] == "classification" and classes is not None:
            _warn_of_lost_classes(found, classes, rows["train"])
    sequences = parts
    if window is not None:
        sequences = {split: part.windows(window, horizon) for split, part in parts.items()}
        notes["windows"] = f"{window} steps{f' and {horizon} for the targets' if horizon else ''}"
    if horizon:
        notes["forecast"] = f"{horizon} step{'s' if horizon > 1 else ''} ahead"
    return parts, sequences, notes


def _how_split(found: Collection, stratified: bool, given: Mapping[str, Any]) -> str:
    if given["validation_path"] and given["test_path"]:
        return "files"
    drawn = f"draw{' stratified by class' if stratified else ''}{', whole groups' if found.groups is not None else ''}"
    if found.splits is None:
        return drawn
    is_given = {"validation", "test"} <= set(found.splits)  # what has no split is for training
    return "what the files say" if is_given else f"what the files say, and a {drawn} for what they leave out"


def _refuse_short(found: Collection, horizon: int) -> None:
    if (found.lengths <= horizon).any():
        k = int((found.lengths <= horizon).argmax())
        raise UserError(
            f"dataset.horizon: got {horizon}, but series {found.names[k]!r} of {found.path} has {found.lengths[k]} steps; "
            "expected series of more steps than the horizon"
        )


def _warn_of_lost_classes(found: Collection, classes: np.ndarray, train: np.ndarray) -> None:
    lost = sorted(set(classes.tolist()) - set(classes[train].tolist()))
    if lost:
        labels = dict(zip(classes.tolist(), found.labels or [], strict=True))
        warnings.warn(
            f"{found.path}: the training split has no series of {', '.join(str(labels[k]) for k in lost[:5])}, which a model "
            "cannot learn; give more series of such a class, or remove it",
            DataWarning,
            stacklevel=3,
        )
