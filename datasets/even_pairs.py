"""Even pairs: is the number of changes from one symbol to the next odd?"""

import numpy as np

from seqmem.datasets.asked_once import AskedOnce


class EvenPairs(AskedOnce):
    """T bits, each 0 or 1 with equal probability; the answer is the number of pairs 01 and 10 modulo 2.

    A sequence of one bit has no pair, and its answer is 0. Inputs are tokens (B, T + 1), the last of which is 2; targets are
    (B,). See :class:`AskedOnce` for the splits.

    Source: Deletang et al. (2022), even pairs.
    """

    name = "even_pairs"
    symbols = 2
    classes = 2

    def draw(self, random: np.random.Generator, count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return tokens (count, length + 1) and answers (count,)."""
        bits = random.integers(0, 2, (count, length), dtype=np.uint8)
        # The number of changes is odd if and only if the first and the last bit differ.
        return self.asked(bits), bits[:, 0] ^ bits[:, -1]
