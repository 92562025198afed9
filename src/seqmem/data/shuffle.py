"""Pseudo-random permutations of more numbers than fit into memory."""

import numpy as np

from seqmem.data.seeds import generator

ROUNDS = 8


class Shuffle:
    """A pseudo-random permutation of the numbers 0 to ``count - 1`` that depends on a seed and a purpose.

    It needs no table: a Feistel network permutes the numbers of an even number of bits, and what it takes beyond ``count`` goes
    through it again.

    Source: Luby and Rackoff (1988), How to construct pseudorandom permutations from pseudorandom functions; Black and Rogaway
    (2002), Ciphers with arbitrary finite domains (method 2, cycle walking).
    """

    def __init__(self, count: int, seed: int, *purpose: str | int):
        """Draw the keys.

        Args:
            count: n, from 1 to 2^62.
            seed: different seeds give different permutations.
            purpose: different uses of one seed are independent, as in :func:`seqmem.data.generator`.
        """
        self._count = count
        self._bits = np.uint64(max(1, -(-(count - 1).bit_length() // 2)))
        self._keys = generator(seed, *purpose).integers(0, 2**64, ROUNDS, np.uint64)

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        """Return the numbers (...,) int64 that stand in the places of ``numbers``, of 0 to ``count - 1``."""
        found = self._permuted(numbers.astype(np.uint64))
        while (beyond := found >= self._count).any():
            found[beyond] = self._permuted(found[beyond])
        return found.astype(np.int64)

    def _permuted(self, numbers: np.ndarray) -> np.ndarray:
        """Permute the numbers of 2 ``bits`` bits."""
        mask = (np.uint64(1) << self._bits) - np.uint64(1)
        left, right = numbers >> self._bits, numbers & mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right + key) & mask)
        return (left << self._bits) | right


def _mixed(values: np.ndarray) -> np.ndarray:
    """Return a hash of each 64-bit number: the output function of Steele et al. (2014), SplitMix."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
