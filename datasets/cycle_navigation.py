"""Cycle navigation: the place on a cycle after a sequence of moves."""

import numpy as np

from seqmem.datasets.asked_once import AskedOnce

PLACES = 5


class CycleNavigation(AskedOnce):
    """T moves on a cycle of five places, from place 0; the answer is the place after them.

    Tokens 0, 1 and 2, each with equal probability, move by -1, 0 and +1. Inputs are tokens (B, T + 1), the last of which is 3;
    targets are (B,). See :class:`AskedOnce` for the splits.

    Source: Deletang et al. (2022), cycle navigation.
    """

    name = "cycle_navigation"
    symbols = 3
    classes = PLACES

    def draw(self, random: np.random.Generator, count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return tokens (count, length + 1) and answers (count,)."""
        moves = random.integers(0, 3, (count, length), dtype=np.uint8)
        return self.asked(moves), (moves.sum(1, dtype=np.int64) - length) % PLACES
