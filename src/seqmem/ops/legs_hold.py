"""LegS coefficients of a signal by zero-order hold, many samples at once, on any device (HiPPO, Theorem 2).

The memory then represents a signal that is constant between samples: after e samples, sample i fills [i/e, (i+1)/e] of [0, 1].
Samples s, ..., e - 1 after c at s give exact integrals, with p_n(x) = sqrt(2n+1) P_n(2x - 1),
    c'_n = (s/e) sum_j w_j p_n(x_j s/e) c(x_j) + sum_i f_i (I_n((i+1)/e) - I_n(i/e)),    I_n(x) = int_0^x p_n,
    c(x) = sum_k c_k p_k(x),    I_n = (P_{n+1} - P_{n-1}) / (2 sqrt(2n+1)) up to a constant,
where x_j and w_j are Gauss nodes and weights on [0, 1]. One recurrence over n gives all P_n: O(N) a sample, instead of O(N^2).

The products for several e have zeros for samples behind an e, and 0 * NaN is NaN: samples that are not finite take no part in
them, and results from such a sample on are NaN.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqmem.ops import extension
from seqmem.ops.constants import on_device
from seqmem.ops.transforms import register_gradient

HOST_PAIRS, DEVICE_PAIRS = 2**14, 2**20
"""Most pairs of a sample and a result of one recurrence: they stay in the cache of a processor, and fill a GPU."""


def legs_hold(signal: Tensor, memory: Tensor, start: int, every: int) -> tuple[Tensor, Tensor]:
    """Compute :func:`seqmem.ops.legs_projection.legs_projection` by zero-order hold, in float64."""
    kept, after = torch.ops.seqmem.legs_hold.default(signal.double(), memory.double(), start, every)
    return kept.to(signal.dtype), after.to(signal.dtype)


@on_device
def quadrature(order: int) -> tuple[Tensor, Tensor, Tensor]:
    """Gauss-Legendre quadrature on [0, 1]: sqrt(w_j) p_k(x_j), an orthogonal matrix (N, N); x_j and sqrt(w_j), (N,)."""
    nodes, weights = np.polynomial.legendre.leggauss(order)
    basis = np.polynomial.legendre.legvander(nodes, order - 1) * np.sqrt(2 * np.arange(order) + 1)
    half = np.sqrt(weights / 2)
    return torch.from_numpy(half[:, None] * basis), torch.from_numpy((nodes + 1) / 2), torch.from_numpy(half)


def _hold(signal: Tensor, memory: Tensor, start: int, every: int) -> tuple[Tensor, Tensor]:
    values, nodes, half = quadrature(memory, memory.shape[1])
    memory = torch.zeros_like(memory) if start == 0 else memory.clone()
    finite, kept = signal.isfinite(), []
    if not signal.is_cpu or not finite.all():  # a GPU would have to wait for the answer
        signal = signal.where(finite, 0)
    for begin, ends in _groups(start, signal.shape[1], every, _pairs(signal)):
        samples = signal[:, begin - start : ends[-1] - start]
        at_nodes = (memory @ values.T) * half
        after = memory.new_empty(len(memory), len(ends), memory.shape[1])
        for n, (cells, polynomials) in enumerate(_integrals(begin, ends, nodes)):
            torch.add(samples @ cells.T, at_nodes @ polynomials.T, out=after[:, :, n])
        kept += [after[:, k] for k, end in enumerate(ends) if every > 0 and end % every == 0]
        memory = after[:, -1]
    memory = memory.masked_fill((~finite).any(1, keepdim=True), torch.nan)
    if not kept:
        return memory.new_empty(len(memory), 0, memory.shape[1]), memory
    spoiled = _seen(~finite)[:, every - 1 - start % every :: every, None]
    return torch.stack(kept, 1).masked_fill(spoiled, torch.nan), memory


def _hold_adjoint(grad_kept: Tensor, grad_after: Tensor, length: int, start: int, every: int) -> tuple[Tensor, Tensor]:
    values, nodes, half = quadrature(grad_after, grad_after.shape[1])
    count = grad_kept.shape[1]
    kept_finite, after_finite = grad_kept.isfinite(), grad_after.isfinite()
    grad_kept, grad = grad_kept.where(kept_finite, 0), grad_after.where(after_finite, 0)
    grad_signal = grad.new_zeros(len(grad), length)
    wrong = torch.cat((~kept_finite.all(2), ~after_finite.all(1, keepdim=True)), 1)
    spoiled = _seen(wrong.flip(1)).flip(1)  # (B, K + 1), of samples before each kept result, and before the end
    interval = every if every > 0 else start + length + 1
    following = torch.arange(start, start + length, device=grad.device) // interval - start // interval
    for begin, ends in reversed(list(_groups(start, length, every, _pairs(grad)))):
        grads = grad.new_zeros(len(grad), len(ends), grad.shape[1])
        grads[:, -1] = grad
        for k in range(len(ends) - 1, -1, -1):
            if every > 0 and ends[k] % every == 0:
                count -= 1
                grads[:, k] += grad_kept[:, count]
        of_samples = grad_signal[:, begin - start : ends[-1] - start]
        at_nodes = torch.zeros_like(grad)
        for n, (cells, polynomials) in enumerate(_integrals(begin, ends, nodes)):
            of_samples += grads[:, :, n] @ cells
            at_nodes += grads[:, :, n] @ polynomials
        grad = (at_nodes * half) @ values
    grad_signal = grad_signal.masked_fill(spoiled[:, following], torch.nan)
    return grad_signal, torch.zeros_like(grad) if start == 0 else grad.masked_fill(spoiled[:, :1], torch.nan)


def _seen(events: Tensor) -> Tensor:
    """Return whether a row of (B, T) has had an event, up to and including each place."""
    return events.cumsum(1) > 0


def _integrals(begin: int, ends: list[int], nodes: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield, for n = 0, 1, ..., the integrals of p_n over the samples from ``begin`` on, and p_n at the shrunk nodes.

    Yields:
        (J, C) for J ends and C samples, 0 for samples behind an end; and (J, N), times ``begin`` / end. Both are overwritten.
    """
    count = ends[-1] - begin + 1
    distance = ends[1] - ends[0] if len(ends) > 1 else 0
    results = (ends[0] + distance * torch.arange(len(ends), dtype=nodes.dtype, device=nodes.device)).clamp(max=ends[-1])
    scale = 1 / results[:, None]
    edges = torch.arange(begin, begin + count, dtype=nodes.dtype, device=nodes.device)
    z = 2 * torch.cat(((edges * scale).clamp(max=1), begin * scale * nodes), 1) - 1
    before, value, after = torch.zeros_like(z), torch.ones_like(z), torch.empty_like(z)
    cells, shrunk = z.new_empty(len(z), count - 1), begin * scale
    for n in range(len(nodes)):
        root = math.sqrt(2 * n + 1)
        torch.mul(z, value, out=after)
        after.mul_((2 * n + 1) / (n + 1)).sub_(before, alpha=n / (n + 1))
        before.neg_().add_(after)
        torch.sub(before[:, 1:count], before[:, : count - 1], out=cells)
        yield cells.mul_(0.5 / root), value[:, count:] * (root * shrunk)
        before, value, after = value, after, before


def _groups(start: int, length: int, every: int, pairs: int) -> Iterator[tuple[int, list[int]]]:
    """Yield positions, and the next positions after which coefficients are computed: the kept ones, and one for each group."""
    end = start + length
    at_once = math.isqrt(pairs // every) if 0 < every < pairs else 1
    while start < end:
        following = min(end, (start // every + 1) * every) if every > 0 else end
        if at_once == 1:
            ends = [min(following, start + pairs)]
        else:
            ends = list(range(following, min(end, following + (at_once - 1) * every) + 1, every))
            if len(ends) < at_once and ends[-1] < end:
                ends.append(end)
        yield start, ends
        start = ends[-1]


def _pairs(tensor: Tensor) -> int:
    return HOST_PAIRS if tensor.is_cpu else DEVICE_PAIRS


def _hold_shapes(signal: Tensor, memory: Tensor, start: int, every: int) -> tuple[Tensor, Tensor]:
    count = (start + signal.shape[1]) // every - start // every if every > 0 else 0
    return memory.new_empty(memory.shape[0], count, memory.shape[1]), memory.new_empty(memory.shape)


def _adjoint_shapes(grad_kept: Tensor, grad_after: Tensor, length: int, *settings: Any) -> tuple[Tensor, Tensor]:
    return grad_after.new_empty(grad_after.shape[0], length), grad_after.new_empty(grad_after.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.length, ctx.settings = inputs[0].shape[1], inputs[2:]


def _backward(ctx: Any, grad_kept: Tensor, grad_after: Tensor) -> tuple[Tensor | None, ...]:
    return *torch.ops.seqmem.legs_hold_adjoint.default(grad_kept, grad_after, ctx.length, *ctx.settings), None, None


def _save_adjoint(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.settings = inputs[3:]


def _adjoint_backward(ctx: Any, signal: Tensor, memory: Tensor) -> tuple[Tensor | None, ...]:
    return *torch.ops.seqmem.legs_hold.default(signal, memory, *ctx.settings), None, None, None


_library = torch.library.Library("seqmem", "FRAGMENT")


def _register() -> None:
    tags = (torch.Tag.pt2_compliant_tag,)
    settings = "SymInt start, SymInt every) -> (Tensor, Tensor)"
    _library.define(f"legs_hold(Tensor signal, Tensor memory, {settings}", tags=tags)
    _library.define(f"legs_hold_adjoint(Tensor grad_kept, Tensor grad_after, SymInt length, {settings}", tags=tags)
    _library.impl("legs_hold", _hold, "CompositeExplicitAutograd")
    _library.impl("legs_hold_adjoint", _hold_adjoint, "CompositeExplicitAutograd")
    extension.register_shapes("seqmem::legs_hold", _hold_shapes)
    extension.register_shapes("seqmem::legs_hold_adjoint", _adjoint_shapes)
    register_gradient("seqmem::legs_hold", _backward, _save)
    register_gradient("seqmem::legs_hold_adjoint", _adjoint_backward, _save_adjoint)


_register()
