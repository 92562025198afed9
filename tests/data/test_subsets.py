"""Random subsets against the probabilities of draws without replacement."""

import itertools
import math

import numpy as np
import pytest

from seqmem.data import generator, random_subsets, subsets


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


def test_all_numbers_may_be_drawn():
    found = random_subsets(generator(0, "all"), 50, 7, 7)
    assert (np.sort(found, axis=1) == np.arange(7)).all()
    assert len({tuple(row) for row in found}) > 45
