"""Check for losses that are not finite, which does not wait for a GPU."""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from seqmem.training.loop.not_finite import Finding, NotFiniteError

STEPS = 16
"""Losses of a GPU that are copied to the host at once."""


class Position(NamedTuple):
    """Position of a batch in the training.

    Attributes:
        epoch: from 0.
        batch: of the epoch, from 0.
        step: number of optimiser steps before it.
    """

    epoch: int
    batch: int
    step: int


class LossCheck:
    """Refuse losses that are not finite.

    Elsewhere than on a GPU a loss is checked before its gradients are computed. Those of a GPU are copied to the host in the
    background, and each is checked when it has arrived, some steps later. :meth:`wait` checks all: call it before a checkpoint
    is written and at the end of an epoch, so that no checkpoint holds weights that such a loss has spoilt.

    Args:
        advice: last part of the error: the remedy.
        deferred: check later, whatever the device; None for losses of a GPU alone.
    """

    def __init__(self, advice: str, deferred: bool | None = None):
        self._advice, self._deferred = advice, deferred
        self._gathered: list[_Loss] = []
        self._copies: deque[_Copy] = deque()

    def add(
        self, loss: Tensor, step: Callable[[], tuple[Position, Optimizer]], find: Callable[[], Finding | None] = lambda: None
    ) -> None:
        """Check the loss of a batch, a scalar, or take it for a later check.

        Args:
            loss: of the batch.
            step: returns the position of the batch, and the optimiser, whose parameters still have the gradients of the step
                before.
            find: computes the step again and returns what is first not finite in it; not called for a later check.

        Raises:
            NotFiniteError: it is not finite, or one of those that have arrived is not.
        """
        if not (loss.is_cuda if self._deferred is None else self._deferred):
            if not torch.isfinite(loss):
                position, optimizer = step()
                rate, norm = optimizer.param_groups[0]["lr"], _gradient_norm(optimizer)
                raise self._error(loss.item(), position, rate, norm, find())
            return
        position, optimizer = step()
        self._gathered.append(_Loss(loss.detach(), position, optimizer.param_groups[0]["lr"]))
        if len(self._gathered) == STEPS:
            self._copy()
        while self._copies and self._copies[0].arrived():
            self._check(self._copies.popleft())

    def wait(self) -> None:
        """Check all losses so far; this waits for the GPU.

        Raises:
            NotFiniteError: one is not finite.
        """
        self._copy()
        while self._copies:
            self._check(self._copies.popleft())

    def _copy(self) -> None:
        if self._gathered:
            self._copies.append(_Copy(self._gathered))
            self._gathered = []

    def _check(self, copy: "_Copy") -> None:
        for loss, value in zip(copy.losses, copy.values(), strict=True):
            if not torch.isfinite(value):
                self._gathered, self._copies = [], deque()
                raise self._error(value.item(), loss.position, loss.rate, "unknown")

    def _error(
        self, value: float, position: Position, rate: float, norm: str, finding: Finding | None = None
    ) -> NotFiniteError:
        fact = (
            f"the training loss became {value} at batch {position.batch} of epoch {position.epoch + 1} (step {position.step}, "
            f"learning rate {rate:g}, norm of the gradient before {norm})"
        )
        return NotFiniteError.of(fact, self._advice, (position.epoch, position.batch), finding)


class _Loss(NamedTuple):
    value: Tensor
    position: Position
    rate: float


class _Copy:
    """A copy of losses on its way to the host."""

    def __init__(self, losses: list[_Loss]):
        self.losses = losses
        there = torch.stack([loss.value for loss in losses])
        self._event = torch.cuda.Event() if there.is_cuda else None
        self._values = torch.empty(there.shape, dtype=there.dtype, pin_memory=there.is_cuda)
        self._values.copy_(there, non_blocking=True)
        if self._event is not None:
            self._event.record(torch.cuda.current_stream(there.device))

    def arrived(self) -> bool:
        return self._event is None or self._event.query()

    def values(self) -> Tensor:
        if self._event is not None:
            self._event.synchronize()
        return self._values


def _gradient_norm(optimizer: Optimizer) -> str:
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    return f"{nn.utils.get_total_norm(gradients).item():g}" if gradients else "unknown"
