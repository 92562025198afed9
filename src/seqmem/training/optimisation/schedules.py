"""Learning rates that change in the course of training."""

import math
from typing import Literal

Schedule = Literal["constant", "exponential", "cosine"]


def learning_rate(schedule: Schedule, progress: float, first: float, last: float) -> float:
    """The learning rate at a point of the training.

    Args:
        schedule: constant; exponential: first (last / first)^progress; cosine: half a period of a cosine between the two.
        progress: 0 at the beginning, 1 at the end; beyond that the rate stays at ``last``.
        first: at the beginning.
        last: at the end.
    """
    progress = min(progress, 1.0)
    if schedule == "exponential":
        return first * (last / first) ** progress
    if schedule == "cosine":
        return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2
    return first
