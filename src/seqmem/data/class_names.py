"""Numbers of classes from their labels."""

import re
from collections.abc import Sequence

import numpy as np

from seqmem.errors import UserError, suggestion

_number = re.compile(r"[+-]?\d+\.?\d*([eE][+-]?\d+)?")


def numbered(labels: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return the different labels in order, and for each label its position among them (n,).

    Labels are ordered as numbers, and 1 and 1.0 are the same, if all of them are numbers; otherwise they are ordered as texts.

    >>> numbered(["10", "9", "10"])
    (['9', '10'], array([1, 0, 1]))
    """
    keys = _keys(labels)
    _, first, places = np.unique(np.array(keys), return_index=True, return_inverse=True)
    return [labels[k] for k in first], places


def numbered_as(labels: Sequence[str], names: Sequence[str], where: str) -> np.ndarray:
    """Return for each label its position among the names of known classes (n,).

    Args:
        labels: of new series.
        names: of the classes.
        where: file of the labels, for messages.

    Raises:
        UserError: a label is not one of the names.
    """
    found = places_of(labels, names)
    for label, place in zip(labels, found, strict=True):
        if place is None:
            raise UserError(f"{where}: got the label '{label}', expected a class of the training{suggestion(label, names)}")
    return np.array(found)


def places_of(labels: Sequence[str], names: Sequence[str]) -> list[int | None]:
    """Return for each label its position among the names of known classes; None for another label."""
    places = {key: place for place, key in enumerate(_keys(names))}
    as_numbers = all(isinstance(key, float) for key in places)
    return [places.get(float(label) if as_numbers and _number.fullmatch(label) else label) for label in labels]


def _keys(labels: Sequence[str]) -> list[float] | list[str]:
    """Return labels as numbers if all are numbers, else as texts."""
    return [float(label) for label in labels] if all(_number.fullmatch(label) for label in labels) else list(labels)
