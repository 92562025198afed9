"""Schedules of the learning rate that ``train.schedule`` selects, with the arguments of ``train.schedule_args``."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import PositiveFloat

from seqmem.training.optimisation.selectable import Selectable

Interval = Literal["epoch", "step"]


class Schedule(Selectable):
    """The learning rate in the course of training; a dataclass below it with a ``name`` is registered.

    Attributes:
        ends: the rate goes from ``train.lr`` to ``train.final_lr``, so that it depends on the length of the training.
    """

    key = "train.schedule"
    ends: ClassVar[bool] = False

    def rate(self, count: int, total: float, first: float, last: float) -> float:
        """Learning rate of an epoch or of a step.

        Args:
            count: its number, from 0.
            total: number of all epochs or steps.
            first: rate at the beginning.
            last: rate of the last epoch or step, and beyond it; only for schedules that end.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Constant(Schedule):
    """The same rate throughout."""

    name = "constant"

    def rate(self, count: int, total: float, first: float, last: float) -> float:
        """``first``."""
        return first


@dataclass(frozen=True)
class Exponential(Schedule):
    """first (last / first)^p, where p is the progress."""

    name = "exponential"
    ends = True

    def rate(self, count: int, total: float, first: float, last: float) -> float:
        """A constant factor between one rate and the next."""
        return first * (last / first) ** progress(count, total)


@dataclass(frozen=True)
class Cosine(Schedule):
    """last + (first - last) (1 + cos(pi p)) / 2, where p is the progress (Loshchilov and Hutter, 2017)."""

    name = "cosine"
    ends = True

    def rate(self, count: int, total: float, first: float, last: float) -> float:
        """Half a period of a cosine."""
        return last + (first - last) * (1 + math.cos(math.pi * progress(count, total))) / 2


@dataclass(frozen=True)
class InverseTime(Schedule):
    """first / (1 + decay i) at epoch or step i.

    Attributes:
        decay: at epoch or step 1 / decay the rate is half of ``first``.
    """

    name = "inverse_time"
    decay: PositiveFloat

    def rate(self, count: int, total: float, first: float, last: float) -> float:
        """Slower and slower decay, without an end."""
        return first / (1 + self.decay * count)


def progress(count: int, total: float) -> float:
    """Return 0 at the first of ``total`` epochs or steps, 1 at the last one and beyond; 0 at a single one."""
    return min(count / max(total - 1, 1), 1.0)
