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


@pytest.mark.parametrize("count", [31, 32])
def test_distinct_integers_come_in_every_order_equally_often(count):
    """On both sides of the change of method: chi-squared, which is within 4 standard deviations of its mean."""
    pairs = count * (count - 1)
    found = distinct_integers(generator(0, "distinct"), 50 * pairs, 2, count)
    orders, counts = np.unique(found, axis=0, return_counts=True)
    assert orders.tolist() == [list(order) for order in itertools.permutations(range(count), 2)]
    assert abs(((counts - 50) ** 2 / 50).sum() - (pairs - 1)) < 4 * math.sqrt(2 * (pairs - 1))


def test_distinct_integers_are_distinct():
    found = np.sort(distinct_integers(generator(0, "distinct"), 400, 40, 640), axis=1)
    assert (found[:, 1:] > found[:, :-1]).all()
    assert (found[0, 0] >= 0) & (found.max() < 640)


@pytest.mark.parametrize("draw", [random_subsets, distinct_integers])
def test_all_numbers_may_be_drawn(draw):
    found = draw(generator(0, "all"), 50, 7, 7)
    assert (np.sort(found, axis=1) == np.arange(7)).all()
    assert len({tuple(row) for row in found}) > 45
