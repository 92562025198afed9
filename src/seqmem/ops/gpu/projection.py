"""The operator ``seqmem::legs_scan``: LegS coefficients of signals on a GPU, in Triton.

One program per signal loops over its samples, with the coefficients in registers: a step is a scan over N. It takes some 400
clocks, so 10^6 samples take a third of a second, for a few hundred signals at once as for one. Blocks of C steps by products
would compute C / 2 impulse responses a step, which depend on t for LegS: they cost more unless many more signals share them.

Step t has the size 1/t. With v_n = 1 / (t + (n+1) alpha), s_n = sqrt(2n+1) and r_0 = f (``csrc/legs.h``),
    y_n = x_n + v_n (s_n r_n - (n+1) x_n)        r_{n+1} = (1 - (2n+1) alpha v_n) r_n - s_n (1 - (n+1) alpha v_n) x_n.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from seqmem.ops import extension
from seqmem.ops.gpu.memory_step import DEVICES, library
from seqmem.ops.gpu.scans import recurrence, recurrence_from
from seqmem.ops.gpu.updates import block, number, split
from seqmem.ops.transforms import register_gradient

FLOAT32_STEPS = 2**23
"""From this step on, changes are below the rounding of float32 coefficients: computed in float64."""


@triton.jit
def _coefficients(t, alpha, n, order, like):
    """Return (n+1) v_n and s_n v_n, and the factors of the recurrence of r; 0 behind the order except for r's own."""
    count = n.to(tl.float64) + 1.0
    scale = tl.where(n < order, tl.sqrt(2.0 * count - 1.0), 0.0)
    v = 1.0 / (tl.full((), tl.maximum(t, 1), tl.float64) + count * alpha)
    carry = 1.0 - (2.0 * count - 1.0) * alpha * v
    feed = -scale * (1.0 - count * alpha * v)
    return (count * v).to(like.dtype), (scale * v).to(like.dtype), carry.to(like.dtype), feed.to(like.dtype)


@triton.jit
def _projection_kernel(
    signal, memory, kept, after, order, length, count, start, every, alpha_high, alpha_low, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, BLOCK)
    inside = n < order
    x = tl.load(memory + row * order + n, mask=inside, other=0.0)
    alpha = number(alpha_high, alpha_low)
    signal += row * length
    kept += row * count * order
    following = tl.load(signal)
    t = tl.full((), start, tl.int64)
    past = t % tl.maximum(every, 1)  # samples since the last multiple of `every`
    for j in range(length):
        sample = following
        following = tl.load(signal + tl.minimum(j + 1, length - 1))
        forget, gain, carry, feed = _coefficients(t, alpha, n, order, x)
        r = recurrence_from(sample, carry, feed * x)
        x = tl.where(t == 0, tl.where(n == 0, sample, 0.0), x + (gain * r - forget * x))
        t += 1
        past += 1
        if past == every:
            tl.store(kept + n, x, mask=inside)
            kept += order
            past = past * 0
    tl.store(after + row * order + n, x, mask=inside)


@triton.jit
def _projection_adjoint_kernel(
    grad_kept,
    grad_after,
    grad_signal,
    grad_memory,
    order,
    length,
    count,
    start,
    every,
    alpha_high,
    alpha_low,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, BLOCK)
    inside = n < order
    g = tl.load(grad_after + row * order + n, mask=inside, other=0.0)
    alpha = number(alpha_high, alpha_low)
    grad_signal += row * length + length - 1
    grad_kept += (row + 1) * count * order
    t = tl.full((), start, tl.int64) + length
    past = t % tl.maximum(every, 1)
    for _ in range(length):
        if past == 0 and every > 0:
            grad_kept -= order
            g += tl.load(grad_kept + n, mask=inside, other=0.0)
            past += every
        t -= 1
        past -= 1
        forget, gain, carry, feed = _coefficients(t, alpha, n, order, g)
        r = recurrence(carry, gain * g, True)
        drive = tl.where(t == 0, g, carry * r + gain * g)
        tl.store(grad_signal, tl.sum(tl.where(n == 0, drive, 0.0), 0))
        grad_signal -= 1
        g = tl.where(t == 0, 0.0, g + (feed * r - forget * g))
    tl.store(grad_memory + row * order + n, g, mask=inside)


def kept_count(length: int, start: int, every: int) -> int:
    """Return how many multiples of ``every`` samples are in a piece of a signal."""
    return (start + length) // every - start // every if every > 0 else 0


def legs_scan(signal: Tensor, memory: Tensor, start: int, alpha: float, every: int) -> tuple[Tensor, Tensor]:
    """Compute :func:`seqmem.ops.legs_projection.legs_projection` on a GPU, in the signal's type; half precision in float32."""
    dtype = torch.promote_types(signal.dtype, torch.float32)
    if start + signal.shape[1] > FLOAT32_STEPS:
        dtype = torch.float64
    operator = torch.ops.seqmem.legs_scan.default
    kept, after = operator(signal.to(dtype), memory.to(dtype), start, alpha, every)
    return kept.to(signal.dtype), after.to(signal.dtype)


def _scan(signal: Tensor, memory: Tensor, start: int, alpha: float, every: int) -> tuple[Tensor, Tensor]:
    kept, after = _scan_shapes(signal, memory, start, alpha, every)
    given = signal.contiguous(), memory.contiguous(), kept, after
    _launch(_projection_kernel, given, signal.shape[1], start, alpha, every)
    return kept, after


def _scan_adjoint(
    grad_kept: Tensor, grad_after: Tensor, length: int, start: int, alpha: float, every: int
) -> tuple[Tensor, Tensor]:
    grad_signal, grad_memory = _adjoint_shapes(grad_kept, grad_after, length)
    given = grad_kept.contiguous(), grad_after.contiguous(), grad_signal, grad_memory
    _launch(_projection_adjoint_kernel, given, length, start, alpha, every)
    return grad_signal, grad_memory


def _launch(kernel: Any, given: tuple[Tensor, ...], length: int, start: int, alpha: float, every: int) -> None:
    rows, order = given[1].shape
    if rows == 0:
        return
    with torch.cuda.device_of(given[1]):
        kernel[(rows,)](
            *given,
            order,
            length,
            kept_count(length, start, every),
            start,
            every,
            *split(alpha),
            **block(order),
        )


def _scan_shapes(signal: Tensor, memory: Tensor, start: int, alpha: float, every: int) -> tuple[Tensor, Tensor]:
    count = kept_count(signal.shape[1], start, every)
    return memory.new_empty(memory.shape[0], count, memory.shape[1]), memory.new_empty(memory.shape)


def _adjoint_shapes(grad_kept: Tensor, grad_after: Tensor, length: int, *settings: Any) -> tuple[Tensor, Tensor]:
    return grad_after.new_empty(grad_after.shape[0], length), grad_after.new_empty(grad_after.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.length, ctx.settings = inputs[0].shape[1], inputs[2:]


def _backward(ctx: Any, grad_kept: Tensor, grad_after: Tensor) -> tuple[Tensor | None, ...]:
    grads = torch.ops.seqmem.legs_scan_adjoint.default(grad_kept, grad_after, ctx.length, *ctx.settings)
    return *grads, None, None, None


def _save_adjoint(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.settings = inputs[3:]


def _adjoint_backward(ctx: Any, signal: Tensor, memory: Tensor) -> tuple[Tensor | None, ...]:
    return *torch.ops.seqmem.legs_scan.default(signal, memory, *ctx.settings), None, None, None, None


def _register() -> None:
    tags = (torch.Tag.pt2_compliant_tag,)
    settings = "SymInt start, float alpha, SymInt every) -> (Tensor, Tensor)"
    library.define(f"legs_scan(Tensor signal, Tensor memory, {settings}", tags=tags)
    library.define(f"legs_scan_adjoint(Tensor grad_kept, Tensor grad_after, SymInt length, {settings}", tags=tags)
    for device in DEVICES:
        library.impl("legs_scan", _scan, device)
        library.impl("legs_scan_adjoint", _scan_adjoint, device)
    extension.register_shapes("seqmem::legs_scan", _scan_shapes)
    extension.register_shapes("seqmem::legs_scan_adjoint", _adjoint_shapes)
    register_gradient("seqmem::legs_scan", _backward, _save)
    register_gradient("seqmem::legs_scan_adjoint", _adjoint_backward, _save_adjoint)


_register()
