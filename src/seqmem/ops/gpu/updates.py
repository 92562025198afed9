"""Triton kernels of one O(N) memory update, of any measure, and of its transpose.

One program per memory. ``csrc/quasiseparable.h`` derives the step from the generators; here its recurrences are scans.
Coefficients are computed in float64 and rounded once, sums have the memory's type. TRITON_INTERPRET=1 runs on the CPU.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from seqmem.ops.constants import on_device
from seqmem.ops.gpu.scans import elimination, recurrence, recurrence_from, sum_before
from seqmem.ops.transition import generators

Settings = tuple[tuple[str, float], ...]
"""Arguments of a measure, hashable."""


@triton.jit
def _step_size(step_sizes, row, rows_per_size, stride, high, low, PER_ROW: tl.constexpr):
    if PER_ROW:
        return tl.load(step_sizes + row // rows_per_size * stride).to(tl.float64)
    return number(high, low)


@triton.jit
def number(high, low):
    """Return the number that :func:`split` has split, in float64."""
    return tl.full((), high, tl.float64) + tl.full((), low, tl.float64)


@triton.jit
def _begin(
    source, step_sizes, generators, order, rows_per_size, stride, high, low, alpha_high, alpha_low,
    PER_ROW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Return the values that both kernels begin with.

    They are the memory x of the program's row; the generators p, q and d; the step size, 0 for an infinite one, and its
    implicit part; whether the step size is infinite; the row; the coefficients n, and which of them exist.
    """
    row = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, BLOCK)
    inside = n < order
    x = tl.load(source + row * order + n, mask=inside, other=0.0)
    p = tl.load(generators + n, mask=inside, other=0.0)
    q = tl.load(generators + order + n, mask=inside, other=0.0)
    d = tl.load(generators + 2 * order + n, mask=inside, other=0.0)
    dt = _step_size(step_sizes, row, rows_per_size, stride, high, low, PER_ROW)
    starts = dt > 3e38
    dt = tl.where(starts, 0.0, dt)
    return x, p, q, d, dt, dt * number(alpha_high, alpha_low), starts, row, n, inside


@triton.jit
def _triangular_kernel(
    source,
    memory_input,
    step_sizes,
    generators,
    target,
    grad_input,
    order,
    rows_per_size,
    stride,
    high,
    low,
    alpha_high,
    alpha_low,
    ADJOINT: tl.constexpr,
    PER_ROW: tl.constexpr,
    BLOCK: tl.constexpr,
):
    x, p, q, d, dt, i, starts, row, n, inside = _begin(
        source, step_sizes, generators, order, rows_per_size, stride, high, low, alpha_high, alpha_low, PER_ROW, BLOCK
    )
    scale = (tl.load(generators + 5 * order) / tl.load(generators)).to(x.dtype)

    inverse = 1.0 / (1.0 + d * i)
    forget = (dt * d * inverse).to(x.dtype)
    gain = (dt * p * inverse).to(x.dtype)
    carry = (1.0 - i * p * q * inverse).to(x.dtype)
    feed = (-q * inverse).to(x.dtype)
    if ADJOINT:
        r = recurrence(carry, gain * x, True)
        y = x - (forget * x - feed * r)
        drive = tl.sum(tl.where(n == 0, carry * r + gain * x, 0.0), 0) * scale
        first = tl.sum(tl.where(n == 0, x, 0.0), 0)
        tl.store(grad_input + row, tl.where(starts, first, drive))
        y = tl.where(starts, 0.0, y)
    else:
        u = tl.load(memory_input + row)
        r = recurrence_from(scale * u, carry, feed * x)
        y = x + (gain * r - forget * x)
        y = tl.where(starts, tl.where(n == 0, u, 0.0), y)
    tl.store(target + row * order + n, y, mask=inside)


@triton.jit
def _general_kernel(
    source,
    memory_input,
    step_sizes,
    generators,
    target,
    grad_input,
    order,
    rows_per_size,
    stride,
    high,
    low,
    alpha_high,
    alpha_low,
    ADJOINT: tl.constexpr,
    PER_ROW: tl.constexpr,
    BLOCK: tl.constexpr,
):
    x, p, q, d, dt, i, starts, row, n, inside = _begin(
        source, step_sizes, generators, order, rows_per_size, stride, high, low, alpha_high, alpha_low, PER_ROW, BLOCK
    )
    g = tl.load(generators + 3 * order + n, mask=inside, other=0.0)
    h = tl.load(generators + 4 * order + n, mask=inside, other=0.0)
    b = tl.load(generators + 5 * order + n, mask=inside, other=0.0).to(x.dtype)

    a, s, inverse = elimination(p, q, d, g, h, i, n, BLOCK)
    keep_lower = (1.0 - a * p).to(x.dtype)
    keep_upper = (1.0 - h * s * inverse).to(x.dtype)
    a, s, inverse = a.to(x.dtype), s.to(x.dtype), inverse.to(x.dtype)
    p, q, d, g, h = p.to(x.dtype), q.to(x.dtype), d.to(x.dtype), g.to(x.dtype), h.to(x.dtype)
    e, dt = (dt - i).to(x.dtype), dt.to(x.dtype)
    if ADJOINT:
        w = (x - h * recurrence(keep_upper, s * inverse * x, False)) * inverse
        lower = recurrence(keep_lower, p * w, True)
        v = w - a * lower
        y = v - e * (d * v + q * lower + h * sum_before(g * v, False))
        first = tl.sum(tl.where(n == 0, x, 0.0), 0)
        tl.store(grad_input + row, tl.where(starts, first, dt * tl.sum(b * v, 0)))
        y = tl.where(starts, 0.0, y)
    else:
        u = tl.load(memory_input + row)
        product = d * x + g * sum_before(h * x, True) + p * sum_before(q * x, False)
        z = x - e * product + b * (dt * u)
        w = z - p * recurrence(keep_lower, a * z, False)
        y = (w - s * recurrence(keep_upper, h * w * inverse, True)) * inverse
        y = tl.where(starts, tl.where(n == 0, u, 0.0), y)
    tl.store(target + row * order + n, y, mask=inside)


def update(
    memory: Tensor, inputs: Tensor, step_sizes: Tensor | None, step_size: float, measure: str, settings: Settings, alpha: float
) -> Tensor:
    """Compute one step of the generalised bilinear transform.

    Args:
        memory: (B, M, N) float32 or float64, not empty.
        inputs: (B, M).
        step_sizes: dt, (B,); an infinite one starts a memory with u e_0. None for ``step_size`` in all rows.
        step_size: dt of all rows.
        measure: see :func:`seqmem.ops.transition`.
        settings: arguments of the measure.
        alpha: the implicit fraction of a step.

    Returns:
        The new memory, (B, M, N).
    """
    target = torch.empty_like(memory, memory_format=torch.contiguous_format)
    _launch(False, memory.contiguous(), inputs.contiguous(), target, (step_sizes, step_size), measure, settings, alpha)
    return target


def update_adjoint(
    grad: Tensor, step_sizes: Tensor | None, step_size: float, measure: str, settings: Settings, alpha: float
) -> tuple[Tensor, Tensor]:
    """Compute the transpose of :func:`update`: gradients of the memory (B, M, N) and of the inputs (B, M)."""
    target = torch.empty_like(grad, memory_format=torch.contiguous_format)
    grad_input = grad.new_empty(grad.shape[:2])
    _launch(True, grad.contiguous(), grad_input, target, (step_sizes, step_size), measure, settings, alpha)
    return target, grad_input


@on_device
def device_generators(measure: str, order: int, settings: Settings) -> Tensor:
    """Generators (6, N) of a measure, see :func:`seqmem.ops.generators`."""
    return generators(measure, order, **dict(settings))


def is_triangular(measure: str) -> bool:
    """Whether A is lower triangular and B a multiple of the generator p."""
    return measure in ("legs", "lagt", "tlagt")


def split(value: float) -> tuple[float, float]:
    """Split a number into two of float32 whose sum has 48 bits of it: Triton passes numbers in float32."""
    high = torch.tensor(value, dtype=torch.float32).item()
    return high, value - high if math.isfinite(high) else 0.0


def block(order: int) -> dict[str, int]:
    """Return the size of a program for N coefficients, and its warps: each has 128, so that they stay in registers."""
    size = max(2, triton.next_power_of_2(order))
    return {"BLOCK": size, "num_warps": min(16, max(1, size // 128))}


def _launch(
    adjoint: bool,
    source: Tensor,
    inputs: Tensor,
    target: Tensor,
    sizes: tuple[Tensor | None, float],
    measure: str,
    settings: Settings,
    alpha: float,
) -> None:
    batch, size, order = source.shape
    step_sizes, step_size = sizes
    rows = device_generators(source.new_empty(0, dtype=torch.float64), measure, order, settings)
    kernel = _triangular_kernel if is_triangular(measure) else _general_kernel
    with torch.cuda.device_of(source):
        kernel[(batch * size,)](
            source,
            inputs,
            source if step_sizes is None else step_sizes,
            rows,
            target,
            inputs,
            order,
            size,
            0 if step_sizes is None else step_sizes.stride(0),
            *split(step_size),
            *split(alpha),
            ADJOINT=adjoint,
            PER_ROW=step_sizes is not None,
            **block(order),
        )
