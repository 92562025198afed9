"""Discretization of diagonal linear systems s' = lambda s + B x, whose inputs are held between steps."""

from typing import Literal, get_args

import torch
from torch import Tensor

from seqmem.errors import check_choice
from seqmem.ops import pairs

Rule = Literal["zoh", "bilinear"]


def discretized(eigenvalues: Tensor, step_size: Tensor, rule: Rule) -> tuple[Tensor, Tensor]:
    """Return a and b of s_t = a s_{t-1} + b B x_t.

        zoh:      a = exp(dt lambda),                            b = (exp(dt lambda) - 1) / lambda
        bilinear: a = (1 + dt lambda / 2) / (1 - dt lambda / 2), b = dt / (1 - dt lambda / 2)

    Args:
        eigenvalues: lambda, (..., 2), pairs of real and imaginary part; not 0.
        step_size: dt, of a shape that broadcasts with that of the eigenvalues without their last dimension.
        rule: zoh (zero-order hold), whose b has no cancellation for small dt lambda, or bilinear.

    Returns:
        Pairs of the broadcast shape.

    Raises:
        UserError: another rule.
    """
    check_choice("rule", rule, get_args(Rule))
    scaled = step_size[..., None] * eigenvalues
    if rule == "zoh":
        return pairs.exp(scaled), pairs.quotient(pairs.expm1(scaled), eigenvalues)
    one = torch.stack([torch.ones_like(scaled[..., 0]), torch.zeros_like(scaled[..., 0])], -1)
    return (
        pairs.quotient(one + scaled / 2, one - scaled / 2),
        pairs.quotient(step_size[..., None] * one, one - scaled / 2),
    )
