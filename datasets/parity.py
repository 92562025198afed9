"""Parity: is the number of ones odd?"""

import numpy as np

from seqmem.datasets.asked_once import AskedOnce


class Parity(AskedOnce):
    """T bits, each 0 or 1 with equal probability; the answer is the number of ones modulo 2.

    Inputs are tokens (B, T + 1), the last of which is 2; targets are (B,). See :class:`AskedOnce` for the splits.

    Source: Deletang et al. (2022), parity check.
    """

    name = "parity"
    symbols = 2
    classes = 2

    def draw(self, random: np.random.Generator, count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return tokens (count, length + 1) and answers (count,)."""
        bits = random.integers(0, 2, (count, length), dtype=np.uint8)
        return self.asked(bits), bits.sum(1) % 2
