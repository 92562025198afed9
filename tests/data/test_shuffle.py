"""Permutations without a table: each number once, by seed and purpose, and like random ones."""

import numpy as np
import pytest

from seqmem.data import Shuffle

CHOSEN = [1, 2, 3, 4, 5, 27, 64, 1000, 2**12 + 1]


@pytest.mark.parametrize("count", CHOSEN)
def test_each_number_stands_in_one_place(count):
    shuffle = Shuffle(count, 0, "words", 7)
    found = shuffle(np.arange(count))
    assert found.dtype == np.int64
    assert sorted(found.tolist()) == list(range(count))
    assert [int(shuffle(np.array([place]))[0]) for place in range(min(count, 20))] == found[:20].tolist()


def test_the_largest_numbers():
    count = 2**62
    places = np.array([[0, 1], [count - 2, count - 1]])
    found = Shuffle(count, 3)(places)
    assert found.shape == (2, 2)
    assert len(set(found.ravel().tolist())) == 4
    assert ((found >= 0) & (found < count)).all()


def test_seeds_and_purposes_give_different_orders():
    orders = [tuple(Shuffle(50, *key)(np.arange(50)).tolist()) for key in ((0,), (1,), (0, "a"), (0, "a", 1), (0, "a", 2))]
    assert len(set(orders)) == len(orders)
    assert orders[0] == tuple(Shuffle(50, 0)(np.arange(50)).tolist())


def test_all_orders_are_about_as_likely():
    """All 24 orders of 4 numbers over 4,800 seeds: chi-squared with 23 degrees of freedom is below 49.7 in 999 of 1,000."""
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(4800):
        order = tuple(Shuffle(4, seed)(np.arange(4)).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert sum((number - 200) ** 2 / 200 for number in counts.values()) < 49.7


def test_neighbours_are_independent():
    """The quarters in which consecutive places land, in pairs: chi-squared with 15 degrees of freedom."""
    count = 60**3
    quarter = Shuffle(count, 0)(np.arange(count)) * 4 // count
    pairs = np.bincount(quarter[:-1] * 4 + quarter[1:], minlength=16)
    expected = (count - 1) / 16
    assert ((pairs - expected) ** 2 / expected).sum() < 37.7
