"""Modular arithmetic: the value of a sum of products."""

import numpy as np

from seqmem.datasets.asked_once import AskedOnce

MODULUS = 5
PLUS, MINUS, TIMES = 5, 6, 7

# Products modulo 5 as sums of logarithms modulo 4: 2^0 = 1, 2^1 = 2, 2^2 = 4, 2^3 = 3. That of 0 is not used.
_POWERS = np.array([1, 2, 4, 3])
_LOGARITHMS = np.array([0, 0, 1, 3, 2])


class ModularArithmetic(AskedOnce):
    """Digits 0 to 4 with the operators +, - and * between them; the answer is the value modulo 5.

    Multiplication comes first. Digits and operators are uniform. A digit is its own token, + - * are 5, 6, 7, token 8 is
    unused, and 9 is the last one. A sequence has an odd number T of symbols, one less than its length where that is even.
    Inputs are tokens (B, T + 1), targets (B,). See :class:`AskedOnce` for the splits.

    Source: Deletang et al. (2022), modular arithmetic without brackets. Their code multiplies in 32 bits, so that its values
    of long products overflow; these do not.
    """

    name = "modular_arithmetic"
    symbols = 9
    classes = MODULUS

    @classmethod
    def symbols_of(cls, length: int) -> int:
        """Return the length if it is odd, or one less."""
        return length - 1 + length % 2

    def draw(self, random: np.random.Generator, count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return tokens (count, T + 1), where T is the length or one less, and answers (count,)."""
        expressions = np.empty((count, self.symbols_of(length)), np.uint8)
        expressions[:, ::2] = random.integers(0, MODULUS, (count, (length + 1) // 2))
        expressions[:, 1::2] = random.integers(PLUS, TIMES + 1, (count, (length - 1) // 2))
        return self.asked(expressions), values(expressions)


def values(expressions: np.ndarray) -> np.ndarray:
    """Return the value (B,) modulo 5 of each of the expressions (B, T) of tokens; T is odd."""
    digits, operators = expressions[:, ::2], expressions[:, 1::2]
    begins = np.ones(digits.shape, bool)
    begins[:, 1:] = operators != TIMES
    negative = np.zeros(digits.shape, bool)
    negative[:, 1:] = operators == MINUS
    # Terms of all rows in order, from the place of the first factor of each.
    [first] = begins.ravel().nonzero()
    logarithms = np.add.reduceat(_LOGARITHMS[digits].ravel(), first)
    is_zero = np.logical_or.reduceat((digits == 0).ravel(), first)
    terms = np.where(is_zero, 0, _POWERS[logarithms % 4]) * np.where(negative.ravel()[first], -1, 1)
    number = begins.sum(1)
    return np.add.reduceat(terms, number.cumsum() - number) % MODULUS
