"""Gradient of the last state by the input at each lag, and the effective memory length."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from seqmem.data.masks import valid_steps
from seqmem.diagnostics.states import flat_state
from seqmem.errors import UserError


def gradient_norms(
    state_of: Callable[[Tensor], Any],
    inputs: Tensor,
    lengths: Tensor | None = None,
    probes: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Compute the Frobenius norm of dh_T/dx_(T-k) at each lag k, for the state h_T after the last step of each row.

    The squared norm of a Jacobian J (d, C) is the sum of |v J|^2 over d orthonormal directions v of the state. One backward
    pass over the sequence computes v J at all lags. With p < d directions the squared norm is estimated by Hutchinson's method,
    d / p times the sum over p random orthonormal directions, which differ from row to row. This is unbiased, and its relative
    standard deviation s is at most sqrt(2 (d - p) / (p (d + 2))), which a Jacobian of rank 1 has. That of the norm is about
    s / 2, and the norm is too small by about s^2 / 8 on average, which is less than 1 / (4 p).

    Args:
        state_of: maps inputs (B, T, C) to a state, as ``lambda inputs: cell(inputs)[1]`` does. Its tensors have the batch as
            first dimension, in tuples and lists of any depth; they count as :func:`flat_state` flattens them. Rows must be
            independent.
        inputs: (B, T, C) floating point.
        lengths: (B,) valid steps of each row, after which the state is; None if all T are valid. ``state_of`` uses the same.
        probes: p, number of directions; None, or d and more, for the exact norm.
        generator: draws the directions; None for one with seed 0.

    Returns:
        (B, T) float64, entry [b, k] for lag k, where lag 0 is the last input of row b; NaN at lags that the row does not have.

    Raises:
        UserError: ``probes`` is not positive, or the state does not depend on the inputs.

    >>> from seqmem.cells import GRU
    >>> cell = GRU(input_size=3, hidden_size=16)
    >>> gradient_norms(lambda inputs: cell(inputs)[1], torch.randn(8, 100, 3)).shape
    torch.Size([8, 100])
    """
    if probes is not None and probes < 1:
        raise UserError(f"probes: got {probes}, expected at least 1")
    inputs = inputs.detach().clone().requires_grad_()
    with torch.enable_grad():
        state = flat_state(state_of(inputs))
    if not state.requires_grad:
        raise UserError("state_of: got a state without a gradient, expected one that is computed from the inputs")
    size = state.shape[1]
    count = size if probes is None else min(probes, size)
    squares = inputs.new_zeros(inputs.shape[:2], dtype=torch.float64)
    for direction in _directions(state.detach(), count, generator):
        [gradient] = torch.autograd.grad(state, inputs, direction, retain_graph=True, allow_unused=True)
        if gradient is None:
            raise UserError("state_of: got a state that does not depend on the inputs, expected one that does")
        squares += gradient.double().square().sum(-1)
    return _by_lag((squares * (size / count)).sqrt(), lengths)


def effective_memory_length(norms: Tensor, left: float = 0.01) -> int:
    """Return the lag beyond which a given part of the gradient is left: the least L with sum_(k>L) g_k <= left sum_k g_k.

    The sum over lags, unlike the first lag at which the norm is small, does not depend on single lags: the norm of a window
    oscillates, and that at lag 0 may exceed all others because a gate acts on the last input. A norm that decays as a^k has
    L + 1 = ln(left) / ln(a), rounded up, if the sequences are long enough. One that does not decay has (1 - left) times the
    number of lags, so that L near this number means a memory longer than the sequences.

    Args:
        norms: (K + 1,) g_k at lags 0 to K, as the mean over rows of :func:`gradient_norms`.
        left: part that is left, above 0 and below 1.

    Raises:
        UserError: another shape, norms that are negative, not finite or all zero, or ``left`` out of range.

    >>> effective_memory_length(0.5 ** torch.arange(50))  # 2^-7 is below 1 %
    6
    """
    if not 0 < left < 1:
        raise UserError(f"left: got {left}, expected a part above 0 and below 1")
    norms = torch.as_tensor(norms).double()
    if norms.dim() != 1 or not len(norms) or not bool((norms.isfinite() & (norms >= 0)).all()) or not norms.any():
        raise UserError("norms: expected (K + 1,) finite norms from 0 on, one of them above 0")
    return int((parts_left(norms) <= left).nonzero()[0])


def parts_left(norms: Tensor) -> Tensor:
    """Return which part of the summed norms (K + 1,) is left beyond each lag, (K + 1,) float64, 0 at the last."""
    beyond = norms.double().flip(0).cumsum(0).flip(0)
    return torch.cat([beyond[1:], beyond.new_zeros(1)]) / beyond[0]


def _directions(state: Tensor, count: int, generator: torch.Generator | None) -> Iterator[Tensor]:
    """Yield orthonormal directions (B, d) of states (B, d): the axes if these are all, else random ones for each row."""
    rows, size = state.shape
    if count == size:
        for k in range(size):
            direction = torch.zeros_like(state)
            direction[:, k] = 1
            yield direction
        return
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    normal = torch.randn(rows, size, count, generator=generator, dtype=torch.float64)
    for direction in torch.linalg.qr(normal).Q.unbind(-1):
        yield direction.to(state)


def _by_lag(values: Tensor, lengths: Tensor | None) -> Tensor:
    """Order values (B, T) of steps by their lag before each row's last valid step; NaN beyond its first."""
    if lengths is None:
        return values.flip(1)
    steps = lengths[:, None] - 1 - torch.arange(values.shape[1], device=values.device)
    return values.gather(1, steps.clamp(min=0)).where(valid_steps(lengths, values.shape[1]), torch.nan)
