"""McNemar's test, the paired bootstrap and Holm's correction: known values, scipy, and simulation."""

from math import comb
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from seqmem.results.paired_tests import bootstrap_interval, holm, mcnemar


def right(both, first, second, neither):
    """Whether two predictions are right, for numbers of examples of each kind."""
    kinds = [(True, True)] * both + [(True, False)] * first + [(False, True)] * second + [(False, False)] * neither
    return np.array(kinds, bool).reshape(-1, 2).T


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(10, 0, 2 / 2**10), (0, 10, 2 / 2**10), (5, 5, 1.0), (0, 0, 1.0), (1, 0, 1.0), (6, 1, 2 * (1 + 7) / 2**7)],
)
def test_mcnemar_counts_the_examples_on_which_one_is_right(first, second, expected):
    assert mcnemar(*right(7, first, second, 4)) == pytest.approx(expected, rel=1e-12)
    assert mcnemar(*right(0, first, second, 0)) == pytest.approx(expected, rel=1e-12)


def test_mcnemar_on_a_published_table():
    """Agresti (2002, table 10.1): 86 and 150 changed their approval; the exact sum of the binomial tail."""
    tail = sum(comb(236, k) for k in range(87))
    assert mcnemar(*right(794, 150, 86, 570)) == pytest.approx(2 * tail / 2**236, rel=1e-9)


def test_mcnemar_rejects_a_true_hypothesis_in_at_most_5_of_100_draws():
    draws = np.random.default_rng(0).random((2, 1000, 60)) < 0.7
    rejected = np.mean([mcnemar(first, second) < 0.05 for first, second in zip(*draws, strict=True)])
    assert 0.01 < rejected <= 0.05 + 3 * (0.05 * 0.95 / 1000) ** 0.5


def test_the_bootstrap_is_that_of_scipy_and_repeatable():
    differences = np.random.default_rng(1).normal(0.1, 1, 200)
    expected = stats.bootstrap(
        (differences,),
        np.mean,
        n_resamples=9999,
        confidence_level=2 * stats.norm.cdf((200 / 199) ** 0.5 * stats.t.ppf(0.975, 199)) - 1,
        method="percentile",
        random_state=np.random.default_rng(0),
    ).confidence_interval
    assert bootstrap_interval(differences) == pytest.approx(tuple(expected), abs=1e-12)
    assert bootstrap_interval(differences) == bootstrap_interval(differences)
    assert bootstrap_interval(differences, seed=1) == pytest.approx(tuple(expected), abs=0.02)


def test_the_bootstrap_of_sums_is_that_of_their_ratio():
    """By other code: resample rows, divide sums."""
    rng = np.random.default_rng(2)
    weights = rng.integers(1, 9, 150)
    sums = rng.normal(0.2, 1, 150) * weights
    chosen = rng.integers(0, 150, (20000, 150))
    naive = np.quantile(sums[chosen].sum(1) / weights[chosen].sum(1), [0.025, 0.975])
    assert bootstrap_interval(sums, weights) == pytest.approx(tuple(naive), abs=0.03)
    assert bootstrap_interval(sums / weights, np.ones(150)) == bootstrap_interval(sums / weights)


def test_many_examples_get_fewer_resamples(monkeypatch):
    called = []

    def bootstrap(*args, **keys):
        called.append(keys)
        return SimpleNamespace(confidence_interval=SimpleNamespace(low=0.0, high=1.0))

    monkeypatch.setattr(stats, "bootstrap", bootstrap)
    for n in (100, 100_000, 10**7):
        bootstrap_interval(np.zeros(n))
    assert [keys["n_resamples"] for keys in called] == [9999, 2000, 999]
    assert [keys["batch"] for keys in called] == [20_000, 20, 1]


def test_intervals_of_few_examples_have_the_width_of_those_by_student():
    """Of 20 normal differences, the percentiles without an expansion are 8 % too close."""
    for seed in range(3):
        differences = np.random.default_rng(seed).normal(0, 1, 20)
        low, high = bootstrap_interval(differences, resamples=99_999)
        t = stats.t.ppf(0.975, 19) * differences.std(ddof=1) / 20**0.5
        assert (high - low) / (2 * t) == pytest.approx(1, abs=0.03)


@pytest.mark.slow
def test_95_of_100_bootstrap_intervals_cover_the_expected_difference():
    """Differences of right predictions, -1, 0 or 1, on 300 examples: 2,000 draws."""
    draws = np.random.default_rng(24).choice([-1.0, 0.0, 1.0], (2000, 300), p=[0.1, 0.7, 0.2])
    covered = [low <= 0.1 <= high for low, high in (bootstrap_interval(draw, resamples=999) for draw in draws)]
    assert 0.93 <= np.mean(covered) <= 0.97


def test_holm_by_hand():
    """Smallest first: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04 is raised to the one before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_holm_rejects_as_the_step_down_procedure_does():
    """Naive: go through the sorted p values, and stop at the first that exceeds alpha / (number left)."""
    rng = np.random.default_rng(3)
    for _ in range(200):
        p_values = (rng.random(6) ** 3).tolist()
        rejected = set()
        for place, k in enumerate(np.argsort(p_values)):
            if p_values[k] > 0.05 / (6 - place):
                break
            rejected.add(int(k))
        assert {k for k, p in enumerate(holm(p_values)) if p <= 0.05} == rejected
