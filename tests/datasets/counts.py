"""Counts of random draws against their probabilities."""

import math

import numpy as np


def assert_frequencies(counts, probabilities, deviations: float = 4.5) -> None:
    """Each count is within a number of standard deviations of its expectation; 4.5 fail once in 150,000 counts."""
    counts, probabilities = np.asarray(counts), np.asarray(probabilities)
    n = counts.sum()
    assert math.isclose(probabilities.sum(), 1)
    assert (counts[probabilities == 0] == 0).all()
    assert (np.abs(counts - n * probabilities) <= deviations * np.sqrt(n * probabilities * (1 - probabilities))).all()
