"""Gradient accumulation: several batches make one optimiser step, as one batch of all their rows would."""

from collections.abc import Iterable

import torch
from torch import Tensor

from seqmem.training.config import TrainConfig


class Window:
    """Weights of the batches whose gradients are added up for the next optimiser step.

    A batch's loss is a mean over its targets that count, and batches may hold different numbers of them. So each loss is
    multiplied by the batch's number over that of the first batch, and the sum of the gradients is divided by the sum of these
    factors. Lightning divides each loss by the number of batches, which :meth:`rescale` makes up for.

    Args:
        batches: K, batches of a step.

    Attributes:
        batches: K.
        total: sum of the factors so far.
    """

    def __init__(self, batches: int):
        self.batches = batches
        self._first = 0.0
        self.total = 0.0
        self.is_open = False

    def add(self, weight: float) -> float:
        """Add a batch with the number of its targets that count; return the factor of its loss."""
        if not self.is_open:
            self._first, self.total, self.is_open = float(weight) or 1.0, 0.0, True
        factor = weight / self._first
        self.total += factor
        return factor

    def is_last(self, batch: int, count: int) -> bool:
        """Return whether a batch, numbered from 0 of ``count`` in the epoch, is the last one before an optimiser step."""
        return (batch + 1) % self.batches == 0 or batch + 1 == count

    def rescale(self, parameters: Iterable[Tensor]) -> None:
        """Turn the gradients into those of the mean over all targets of the batches, in place; begin the next step."""
        factor = self.batches / (self.total or 1.0)
        self.is_open = False
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if factor != 1.0 and gradients:
            torch._foreach_mul_(gradients, factor)

    def state(self) -> list[float]:
        """Return what a checkpoint within the window has to hold besides the gradients; empty between windows."""
        return [self._first, self.total] if self.is_open else []

    def restore(self, state: list[float]) -> None:
        """Set what :meth:`state` returned."""
        self.is_open = bool(state)
        if state:
            self._first, self.total = state


def window_for(train: TrainConfig) -> Window:
    """Create the window of a config."""
    return Window(train.accumulate_grad_batches)
