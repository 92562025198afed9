"""The gates of the real-gated linear recurrent unit (De et al., 2024), and the square root whose slope is bounded."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from seqmem.ops import transforms

STEEPEST = 1000.0
"""The largest slope of :func:`capped_root`, as in the authors' code; it acts below 2.5e-7."""


def rg_lru_terms(
    inputs: Tensor, recurrence: Tensor, gate: Tensor, decay: Tensor, starts: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Compute a and b of h_t = a_t h_{t-1} + b_t (De et al., 2024, equations 1 to 4).

    log a_t = -8 sigmoid(r_t) softplus(Lambda), and b_t = sqrt(1 - a_t^2) sigmoid(q_t) x_t. At the first step of a document a_t
    is 0 and the root is 1, so that the state before it has no influence.

    Args:
        inputs: x, (B, T, N).
        recurrence: r, (B, T, N), the recurrence gate before its sigmoid.
        gate: q, (B, T, N), the input gate before its sigmoid.
        decay: Lambda, (N,).
        starts: (B, T) bool, true at the first step of each document; None for nowhere.

    Returns:
        a and b, (B, T, N) each, for :func:`seqmem.ops.diagonal_scan.diagonal_scan_reference` and its implementations.
    """
    logarithm = torch.sigmoid(recurrence) * (-8 * softplus(decay))
    if starts is not None:
        logarithm = logarithm.masked_fill(starts[..., None], -torch.inf)  # a = 0 and the root of 1, with zero gradients
    return logarithm.exp(), capped_root(-torch.expm1(2 * logarithm)) * (torch.sigmoid(gate) * inputs)


def capped_root(values: Tensor) -> Tensor:
    """Compute the square root of values >= 0 with the derivative min(1 / (2 sqrt(v)), 1000), which is finite at zero.

    It has higher derivatives, and those of forward mode and torch.func: there, and in a compiled or exported graph, it consists
    of torch's operations.
    """
    if transforms.fallback_reason() or torch.compiler.is_compiling():
        steep = values < 1 / (4 * STEEPEST**2)
        below = values.detach().sqrt() + STEEPEST * (values - values.detach())
        return torch.where(steep, below, values.where(~steep, 1).sqrt())
    root: Tensor = _CappedRoot.apply(values)
    return root


class _CappedRoot(torch.autograd.Function):
    """One pass in each direction, where torch's operations need five."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        root = values.sqrt()
        ctx.save_for_backward(root)
        return root

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        [root] = ctx.saved_tensors
        return gradients[0] / (2 * root).clamp(min=1 / STEEPEST)
