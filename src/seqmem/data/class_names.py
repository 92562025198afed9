"""Numbers of classes from their labels."""

import re
from collections.abc import Sequence

import numpy as np

_number = re.compile(r"[+-]?\d+\.?\d*([eE][+-]?\d+)?")


def numbered(labels: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return the different labels in order, and for each label its position among them (n,).

    Labels are ordered as numbers, and 1 and 1.0 are the same, if all of them are numbers; otherwise they are ordered as texts.

    >>> numbered(["10", "9", "10"])
    (['9', '10'], array([1, 0, 1]))
    """
    keys = [float(label) for label in labels] if all(_number.fullmatch(label) for label in labels) else list(labels)
    _, first, places = np.unique(np.array(keys), return_index=True, return_inverse=True)
    return [labels[k] for k in first], places
