"""Shuffling of a split that is read from a file: by blocks of consecutive series, so that reads are near each other."""

from collections.abc import Iterator

import numpy as np

from seqmem.data.dataset import EpochSampler
from seqmem.data.seeds import generator

MIXED = 8
"""Blocks whose series are shuffled together."""


class BlockSampler(EpochSampler):
    """Blocks in random order, and the series of every eight of them shuffled together.

    The order depends on the seed and the epoch alone.

    Args:
        size: number of series.
        block: consecutive series of a block.
        seed: of the order.
    """

    def __init__(self, size: int, block: int, seed: int):
        super().__init__(size)
        self._block, self._seed = block, seed

    def order(self) -> Iterator[int]:
        """Yield a permutation of the indices."""
        random = generator(self._seed, "blocks", self._epoch)
        blocks = random.permutation(-(-self._size // self._block))
        for first in range(0, len(blocks), MIXED):
            together = [
                np.arange(block * self._block, min((block + 1) * self._block, self._size))
                for block in blocks[first : first + MIXED].tolist()
            ]
            yield from random.permutation(np.concatenate(together)).tolist()
