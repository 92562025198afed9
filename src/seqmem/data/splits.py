"""Seeded splits into training, validation and test parts, as arrays of indices."""

from typing import Literal, get_args

import numpy as np

from seqmem.data.seeds import generator
from seqmem.errors import UserError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

SPLITTING = ("split_seed", "split_by", "split_column", "group_column", "resplit", "validation_fraction", "test_fraction")
"""Arguments that choose, in every data set that has them, which sequences are in which split."""


def random_split(count: int, validation_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split 0 to ``count - 1`` into a training and a validation part, both in random order.

    Args:
        count: number of samples.
        validation_fraction: fraction for validation, above 0 and below 1; rounded to whole samples.
        seed: seed of the random order.

    Returns:
        The indices for training and those for validation, int64.

    Raises:
        UserError: one of the parts would be empty.
    """
    validation = round(count * validation_fraction)
    if not 0 < validation < count:
        raise UserError(
            f"validation_fraction={validation_fraction} of {count} samples leaves {count - validation} for training"
            f" and {validation} for validation, expected at least 1 for each"
        )
    order = generator(seed, "split").permutation(count)
    return order[validation:], order[:validation]


def stratified_validation(labels: np.ndarray, validation_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split samples into a training and a validation part with equal class frequencies, as far as rounding allows.

    Both parts get at least one sample. The last sample of a class leaves the training part only if no other sample is left to
    choose, for example with one sample a class.

    Args:
        labels: (n,) the class of each sample.
        validation_fraction: fraction for validation, above 0 and below 1; rounded to whole samples.
        seed: seed of the random choice.

    Returns:
        The indices for training and those for validation, int64, both in random order.

    Raises:
        UserError: there is only one sample.
    """
    if len(labels) < 2:
        raise UserError(f"{len(labels)} sample cannot be split into a training and a validation part, expected at least 2")
    order = generator(seed, "split").permutation(len(labels))
    # The k-th of n samples of a class is ranked at (k + 1/2) / n, so that the first samples hold the same fraction of each
    # class.
    places = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        places[members] = (np.arange(len(members)) + 0.5) / len(members)
        places[members[-1]] = 1
    validation = min(max(round(len(labels) * validation_fraction), 1), len(labels) - 1)
    chosen = np.argsort(places[order], kind="stable")[:validation]
    return np.delete(order, chosen), order[chosen]


def stratified_split(labels: np.ndarray, held_out: float, seed: int) -> dict[Split, np.ndarray]:
    """Split samples into three parts with equal class frequencies.

    Args:
        labels: (n,) the class of each sample.
        held_out: fraction for validation, and the same fraction for test; below 0.5.
        seed: seed of the random choice.

    Returns:
        The indices of each split, int64.
    """
    # Imported here because it takes a second, and listing the data sets must be fast.
    from sklearn.model_selection import train_test_split

    size = round(len(labels) * held_out)
    rest, test = train_test_split(np.arange(len(labels)), test_size=size, stratify=labels, random_state=seed)
    train, validation = train_test_split(rest, test_size=size, stratify=labels[rest], random_state=seed)
    return {"train": train, "validation": validation, "test": test}
