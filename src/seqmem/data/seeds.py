"""Random numbers from a seed and a purpose, so that two uses of one seed are independent of each other."""

from typing import Annotated

import numpy as np
from pydantic import Field

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""What numpy, scikit-learn and torch all take as a seed."""


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """Random numbers that depend on the seed and on every word of the purpose, ``generator(0, "order", epoch)`` say."""
    words = "/".join(str(word) for word in purpose)
    return np.random.default_rng([seed, *words.encode()])
