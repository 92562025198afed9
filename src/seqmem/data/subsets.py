"""Random subsets: for each row, some of the numbers 0 to n - 1 without replacement."""

import numpy as np

BLOCK = 2**22
"""Random keys that are in memory at once, at most."""


def random_subsets(
    random: np.random.Generator, rows: int, size: int, count: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """Draw numbers without replacement, independently for each row.

    Args:
        random: source of the random numbers.
        rows: number of rows.
        size: numbers of a row, at most ``count``.
        count: n; the numbers are 0 to n - 1.
        weights: (n,) positive, to which the probability of each draw among the remaining numbers is proportional; None for
            equal ones.

    Returns:
        (rows, size) int64, in the order of the draws.
    """
    # The arrival times of independent Poisson processes with these rates are in the order of such draws (Efraimidis and
    # Spirakis, 2006). With equal rates, the order of uniform keys is as good.
    drawn = []
    block = max(1, BLOCK // count)  # the keys of all rows may not fit into memory
    for start in range(0, rows, block):
        shape = min(block, rows - start), count
        keys = random.random(shape) if weights is None else random.exponential(size=shape) / weights
        first = np.argpartition(keys, size - 1, axis=1)[:, :size]
        order = np.take_along_axis(keys, first, 1).argsort(axis=1)
        drawn.append(np.take_along_axis(first, order, 1))
    return np.concatenate(drawn)


def distinct_integers(random: np.random.Generator, rows: int, size: int, count: int) -> np.ndarray:
    """Draw what :func:`random_subsets` draws without weights, faster if ``count`` is much more than ``size``.

    Args:
        random: source of the random numbers.
        rows: number of rows.
        size: numbers of a row, at most ``count``.
        count: n; the numbers are 0 to n - 1.

    Returns:
        (rows, size) int64, in random order.
    """
    if count < 16 * size:  # drawing equal ones again would take longer than keys for all numbers
        return random_subsets(random, rows, size, count)
    numbers = random.integers(0, count, (rows, size))
    again = np.arange(rows)
    while len(again):
        # What is drawn again depends only on which numbers are equal. So the result has the same distribution after any
        # permutation of the n numbers: all orders of distinct ones are equally likely.
        order = numbers[again].argsort(axis=1, kind="stable")
        values = np.take_along_axis(numbers[again], order, 1)
        row, place = np.nonzero(values[:, 1:] == values[:, :-1])
        numbers[again[row], order[row, place + 1]] = random.integers(0, count, len(row))
        again = again[np.unique(row)]
    return numbers
