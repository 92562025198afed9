"""Splits of a user's series: some are given, the others drawn, and groups stay together."""

import warnings
from collections.abc import Sequence

import numpy as np

from seqmem.data.splits import SPLITS, Split, random_split, stratified_validation
from seqmem.errors import UserError

FRACTIONS: tuple[Split, ...] = ("test", "validation")
"""The splits that are drawn from the training series, in this order."""


def partition(
    count: int,
    fractions: dict[Split, float],
    seed: int,
    classes: np.ndarray | None = None,
    groups: Sequence[str] | None = None,
    given: Sequence[str] | None = None,
) -> dict[Split, np.ndarray]:
    """Split series into training, validation and test.

    A split that no series is given for is drawn from those of the training: stratified by class, and of whole groups.

    Args:
        count: n, number of series.
        fractions: of all series that are not given, for validation and for test.
        seed: of the random choice.
        classes: (n,) the class of each series; None without classes.
        groups: (n) the group of each series; None without groups.
        given: (n) the split of each series, empty for training; None if none is given.

    Returns:
        The indices of each split, in increasing order.

    Raises:
        UserError: there are too few series or groups, or a group has series of several given splits.
    """
    names = np.array([split or "train" for split in given] if given is not None else ["train"] * count)
    if groups is not None and given is not None:
        _refuse_torn_groups(names, groups)
    rest = np.flatnonzero(names == "train")
    total = len(rest)
    found: dict[Split, np.ndarray] = {split: np.flatnonzero(names == split) for split in FRACTIONS}
    for split in FRACTIONS:
        if len(found[split]):
            continue
        share = fractions[split] * total / max(len(rest), 1)
        own = None if classes is None else classes[rest]
        of_groups = None if groups is None else np.array([groups[k] for k in rest.tolist()])
        keep, drawn = _drawn(split, len(rest), share, seed, own, of_groups)
        found[split], rest = rest[drawn], rest[keep]
    found["train"] = rest
    if not len(rest):
        raise UserError(
            f"no series is left for training: got {count} in all, {len(found['validation'])} for validation and "
            f"{len(found['test'])} for test"
        )
    return {split: np.sort(found[split]) for split in SPLITS}


def _drawn(
    split: Split, count: int, share: float, seed: int, classes: np.ndarray | None, groups: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices that stay and those that are drawn."""
    key = f"dataset.{split}_fraction"
    if count < 2 or share >= 1:
        raise UserError(
            f"{key}: got too few series to draw a {split} split ({count} left, share {share:.2g}), expected more series, or "
            "files of their own: dataset.validation_path and dataset.test_path"
        )
    if groups is not None:
        return _of_groups(key, share, seed, classes, groups)
    if classes is not None:
        return stratified_validation(classes, share, seed)
    return random_split(count, min(max(share, 1 / count), 1 - 1 / count), seed)


def _of_groups(
    key: str, share: float, seed: int, classes: np.ndarray | None, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    # Imported here because it takes a second, and listing the data sets must be fast.
    from sklearn.model_selection import GroupShuffleSplit, StratifiedGroupKFold

    number = len(set(groups.tolist()))
    if number < 2:
        raise UserError(
            f"{key}: got {number} group left to draw from, expected at least one for each split; use fewer groups' "
            "splits: dataset.split_column, or no groups"
        )
    places = np.arange(len(groups))
    if classes is not None:
        together, folds = _folds(share, min(number, int(np.bincount(classes).max())))
        parts: list[np.ndarray] = []
        if folds:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The least populated class")
                kept = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(places, classes, groups)
                parts = [drawn for _, drawn in kept]
        candidates = [np.concatenate((parts * 2)[first : first + together]) for first in range(len(parts))]
        candidates = [drawn for drawn in candidates if 0 < len(drawn) < len(groups)]
        if candidates:
            # The folds that are nearest to the fraction; those of few groups differ in size.
            drawn = min(candidates, key=lambda candidate: abs(len(candidate) / len(groups) - share))
            return np.setdiff1d(places, drawn), drawn
    size = min(max(round(share * number), 1), number - 1)
    [(keep, drawn)] = GroupShuffleSplit(1, test_size=size, random_state=seed).split(places, groups=groups)
    return keep, drawn


def _folds(share: float, most: int) -> tuple[int, int]:
    """Return how many of how many folds have about a share; (0, 0) if that takes more folds than ``most``.

    One fold if its share is right within 0.02, else the best of up to ten.
    """
    single = max(2, round(1 / share))
    if abs(1 / single - share) <= 0.02:
        return (1, single) if single <= most else (0, 0)
    pairs = [(together, folds) for folds in range(2, min(most, 10) + 1) for together in range(1, folds)]
    return min(pairs, key=lambda pair: (round(abs(pair[0] / pair[1] - share), 9), pair), default=(0, 0))


def _refuse_torn_groups(names: np.ndarray, groups: Sequence[str]) -> None:
    splits: dict[str, str] = {}
    for name, group in zip(names.tolist(), groups, strict=True):
        if splits.setdefault(group, name) != name:
            raise UserError(
                f"dataset.group_column: got series of group '{group}' in {splits[group]} and in {name}, expected each group in "
                "one split; mend the splits, or give dataset.group_column=none"
            )
