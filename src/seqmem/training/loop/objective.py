"""Objective and gradient clipping, shared by both training loops."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from seqmem.errors import UserError


@dataclass(frozen=True)
class Position:
    """Position of a batch in the training.

    Attributes:
        epoch: from 0.
        batch: of the epoch, from 0.
        step: number of optimiser steps before it.
    """

    epoch: int
    batch: int
    step: int


def objective(loss: Tensor, penalty: Tensor | None, not_finite: Callable[[float], UserError]) -> Tensor:
    """Return the loss plus the model's penalty.

    Args:
        loss: of a batch, a scalar.
        penalty: what the model adds, a scalar; None for nothing.
        not_finite: creates the error from the value of a sum that is not finite.

    Raises:
        UserError: the sum is not finite.
    """
    total = loss if penalty is None else loss + penalty
    if not torch.isfinite(total):
        raise not_finite(total.item())
    return total


def not_finite(value: float, position: Position, optimizer: Optimizer, advice: str) -> UserError:
    """Create the error of a loss that is not finite.

    Args:
        value: of the loss.
        position: of the batch.
        optimizer: whose parameters still have the gradients of the step before.
        advice: what to try.
    """
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = f"{nn.utils.get_total_norm(gradients).item():g}" if gradients else "unknown"
    rate = optimizer.param_groups[0]["lr"]
    return UserError(
        f"the training loss became {value} at batch {position.batch} of epoch {position.epoch + 1} (step {position.step}, "
        f"learning rate {rate:g}, norm of the gradient before {norm}); {advice}"
    )


def clip_gradients(parameters: Iterable[Tensor], limit: float, algorithm: Literal["norm", "value"] = "norm") -> None:
    """Clip gradients in place.

    Args:
        parameters: whose gradients are clipped.
        limit: largest norm of the whole gradient, or largest absolute value of an element; 0 does not clip.
        algorithm: norm or value.
    """
    if limit == 0:
        return
    if algorithm == "norm":
        nn.utils.clip_grad_norm_(parameters, limit)
    else:
        nn.utils.clip_grad_value_(parameters, limit)
