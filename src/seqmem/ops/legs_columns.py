"""LegS coefficients of a signal one after the other, each for many steps at once, by torch's operations on any device.

For coefficient n, the recurrence of ``csrc/legs.h`` over t = start, start + 1, ... is linear in x_n alone, as r_n is known from
the coefficients below: with v = 1 / (t + (n+1) alpha), s = sqrt(2n+1) and r_0 = f,
    x_n(t) = (1 - (n+1) v) x_n(t-1) + s v r_n(t)        r_{n+1} = (1 - (2n+1) alpha v) r_n - s (1 - (n+1) alpha v) x_n(t-1),
solved by a cumulative product and a cumulative sum. From t = N + 1 on, the factors are positive; pieces bound their product.
"""

import math

import torch
from torch import Tensor

PIECE = 2**15
"""Most steps at once."""

BITS = 300
"""A piece ends before t has grown by 2^(BITS / 2N): its product stays above 2^-1000, which is a number of float64."""


def legs_columns(signal: Tensor, memory: Tensor, start: int, alpha: float, every: int) -> tuple[Tensor, Tensor]:
    """Compute :func:`seqmem.ops.legs_projection.legs_projection` from sample ``start`` > N on, in float64.

    It has forward-mode derivatives and supports torch.func.
    """
    dtype, length = signal.dtype, signal.shape[1]
    signal, memory, kept, done = signal.double(), memory.double(), [], 0
    while done < length:
        t = start + done
        size = min(length - done, PIECE, max(1, math.floor(t * math.expm1(BITS * math.log(2) / memory.shape[1] / 2))))
        after, memory = _piece(signal[:, done : done + size], memory, t, alpha, every)
        kept.append(after)
        done += size
    return torch.cat(kept, 1).to(dtype), memory.to(dtype)


def _piece(r: Tensor, memory: Tensor, start: int, alpha: float, every: int) -> tuple[Tensor, Tensor]:
    """Advance coefficients (B, N) over samples (B, T): those kept (B, K, N), and those after the last."""
    chosen = slice((-start - 1) % every, None, every) if every > 0 else slice(0, 0)
    t = torch.arange(start, start + r.shape[1], dtype=r.dtype, device=r.device)
    kept, last = [], []
    for n, first in enumerate(memory.unbind(1)):
        v, scale = 1 / (t + (n + 1) * alpha), math.sqrt(2 * n + 1)
        product = (1 - (n + 1) * v).cumprod(0)
        column = product * (first[:, None] + (scale * v / product * r).cumsum(1))
        before = torch.cat((first[:, None], column[:, :-1]), 1)
        r = (1 - (2 * n + 1) * alpha * v) * r - scale * (1 - (n + 1) * alpha * v) * before
        kept.append(column[:, chosen])
        last.append(column[:, -1])
    return torch.stack(kept, 2), torch.stack(last, 1)
