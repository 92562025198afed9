"""Random numbers from a seed and a purpose: different uses of one seed are independent."""

from typing import Annotated

import numpy as np
from pydantic import Field

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""A seed that numpy, scikit-learn and torch all accept."""


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """Return a generator that depends on the seed and the purpose, for example ``generator(0, "order", epoch)``."""
    words = "/".join(str(word) for word in purpose)
    return np.random.default_rng([seed, *words.encode()])
