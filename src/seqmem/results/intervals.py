"""Confidence interval of a mean over trials."""

import math
from collections.abc import Sequence
from functools import cache
from statistics import fmean, stdev

CONFIDENCE = 0.95
FEWEST = 3
"""Smallest number of values that an interval is made from: of two it would be 9 standard deviations to either side."""


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of a mean by Student's t distribution: mean -/+ t s / sqrt(n).

    It covers the expected value in 95 % of repetitions if the values are independent draws of one normal distribution.

    Args:
        values: n values, with sample standard deviation s.

    Returns:
        Lower and upper end; both NaN for fewer than ``FEWEST`` values, or if a value is not finite.
    """
    if len(values) < FEWEST or not all(map(math.isfinite, values)):
        return math.nan, math.nan
    mean, half = fmean(values), t_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return mean - half, mean + half


@cache
def t_quantile(degrees: int) -> float:
    """Return the quantile of Student's t distribution for a two-sided interval of ``CONFIDENCE``.

    >>> round(t_quantile(2), 4)
    4.3027
    """
    from scipy.special import stdtrit  # a third of the import time of scipy.stats

    return float(stdtrit(degrees, 0.5 + CONFIDENCE / 2))
