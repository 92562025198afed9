"""Random subsets against the probabilities of draws without replacement."""

import itertools
import math

import numpy as np
import pytest

from seqmem.data import distinct_integers, generator, random_subsets, subsets


@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 0.25, 2.0]])
def test_every_order_has_the_probability_of_draws_without_replacement(weights, monkeypatch):
    monkeypatch.setattr(subsets, "BLOCK", 999)
    rows = 20_000
    found = random_subsets(generator(0, "subsets"), rows, 2, 4, None if weights is None else np.array(weights))
    assert found.shape == (rows, 2)
    given = weights or [1.0] * 4
    for first, second in itertools.permutations(range(4), 2):
        probability = given[first] / sum(given) * given[second] / (sum(given) - given[first])
        count = ((found[:, 0] == first) & (found[:, 1] == second)).sum()
        assert abs(count - rows * probability) < 4 * math.sqrt(rows * probability)


@pytest.mark.parametrize("size", [3, 4])
def test_distinct_integers_come_in_every_order_equally_often(size):
    rows = 24_000
    found = distinct_integers(generator(0, "distinct"), rows, size, 4)
    orders, counts = np.unique(found, axis=0, return_counts=True)
    assert orders.tolist() == [list(order) for order in itertools.permutations(range(4), size)]
    assert np.abs(counts - rows / 24).max() < 4 * math.sqrt(rows / 24)


@pytest.mark.parametrize("draw", [random_subsets, distinct_integers])
def test_all_numbers_may_be_drawn(draw):
    found = draw(generator(0, "all"), 50, 7, 7)
    assert (np.sort(found, axis=1) == np.arange(7)).all()
    assert len({tuple(row) for row in found}) > 45
