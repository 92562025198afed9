"""Triton kernels of the memory updates for CUDA tensors, as kernels of the operators ``torch.ops.seqmem.*``.

One program per row. The recurrences along the memory order (derived in csrc/legs.h and csrc/legt.h) are associative scans: maps
r' = a r + b compose to maps of the same form, so a row takes O(log N) parallel steps.

csrc/updates_autograd.cpp registers the gradients. TRITON_INTERPRET=1 runs the kernels on the CPU.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from seqmem.ops.reference import check_update

_ALPHA = {"legs_euler_forward": 0.0, "legs_euler_backward": 1.0, "legs_trapezoidal": 0.5}


@triton.jit
def _compose(a_first, b_first, a_then, b_then):
    return a_then * a_first, a_then * b_first + b_then


@triton.jit
def _legs_kernel(
    source, memory_input, dt, target, grad_input, order, rows_per_dt, alpha, ADJOINT: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0)
    n = tl.arange(0, BLOCK)
    x = tl.load(source + row * order + n, mask=n < order, other=0.0)
    step = tl.load(dt + row // rows_per_dt)
    i = step * alpha
    count = n.to(x.dtype)
    d = 1.0 / (1.0 + (count + 1.0) * i)

    # r at coefficient n is the composition of the maps of all coefficients below n (adjoint: above n).
    earlier = n + 1 if ADJOINT else n - 1
    exists = (earlier >= 0) & (earlier < order)
    x_earlier = tl.load(source + row * order + earlier, mask=exists, other=0.0)
    count_earlier = earlier.to(x.dtype)
    d_earlier = 1.0 / (1.0 + (count_earlier + 1.0) * i)
    carry = tl.where(exists, (1.0 - count_earlier * i) * d_earlier, 1.0)
    feed = tl.where(exists, -tl.sqrt(2.0 * tl.abs(count_earlier) + 1.0) * d_earlier * x_earlier, 0.0)
    a, b = tl.associative_scan((carry, feed), 0, _compose, reverse=ADJOINT)

    scale = tl.sqrt(2.0 * count + 1.0)
    if ADJOINT:
        r = b
        last = (1.0 - count * i) * d * r - scale * d * x
        tl.store(grad_input + row, -step * tl.sum(tl.where(n == 0, last, 0.0), 0))
    else:
        r = a * tl.load(memory_input + row) + b
    y = (1.0 - (count + 1.0) * (step - i)) * d * x + step * scale * d * r
    tl.store(target + row * order + n, y, mask=n < order)


@triton.jit
def _legt_kernel(source, memory_input, dt, target, grad_input, order, rows_per_dt, ADJOINT: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    n = tl.arange(0, BLOCK)
    x = tl.load(source + row * order + n, mask=n < order, other=0.0)
    step = tl.load(dt + row // rows_per_dt)
    weight = 2.0 * n.to(x.dtype) + 1.0
    is_even = n % 2 == 0
    terms = weight * x if ADJOINT else x
    even = tl.where(is_even, terms, 0.0)
    odd = tl.where(is_even, 0.0, terms)
    other_parity = tl.where(is_even, tl.cumsum(odd, 0, reverse=ADJOINT), tl.cumsum(even, 0, reverse=ADJOINT))
    total = 2.0 * other_parity - tl.sum(terms, 0)
    if ADJOINT:
        y = x + step * total
        tl.store(grad_input + row, step * tl.sum(even - odd, 0))
    else:
        u = tl.load(memory_input + row)
        y = x + step * weight * (total + tl.where(is_even, u, -u))
    tl.store(target + row * order + n, y, mask=n < order)


def update(name: str, memory: Tensor, inputs: Tensor, step_size: float | Tensor) -> Tensor:
    """One step of an update, as ``torch.ops.seqmem.NAME``.

    Args:
        name: legs_euler_forward, legs_euler_backward, legs_trapezoidal or legt_euler_forward.
        memory: (B, M, N) floating point.
        inputs: (B, M).
        step_size: dt, a number or (B,).

    Returns:
        The new memory, (B, M, N).
    """
    check_update(memory, inputs, step_size)
    target = torch.empty_like(memory, memory_format=torch.contiguous_format)
    _launch(name, False, memory.contiguous(), inputs.contiguous(), step_size, target, target)
    return target


def adjoint(name: str, grad: Tensor, step_size: float | Tensor) -> tuple[Tensor, Tensor]:
    """The transpose of :func:`update`, as ``torch.ops.seqmem.NAME_adjoint``.

    Args:
        name: as in :func:`update`.
        grad: (B, M, N), the gradient of the new memory.
        step_size: dt, a number or (B,).

    Returns:
        The gradients of the memory (B, M, N) and of the inputs (B, M).
    """
    target = torch.empty_like(grad, memory_format=torch.contiguous_format)
    grad_input = grad.new_zeros(grad.shape[:2])
    _launch(name, True, grad.contiguous(), grad_input, step_size, target, grad_input)
    return target, grad_input


def register() -> None:
    """Register the kernels for CUDA tensors; the compiled library, which has the schemas, must be loaded."""
    for name in (*_ALPHA, "legt_euler_forward"):
        for overload in ("", ".tensor"):
            torch.library.impl(f"seqmem::{name}{overload}", "CUDA", _bind(update, name))
            torch.library.impl(f"seqmem::{name}_adjoint{overload}", "CUDA", _bind(adjoint, name))


def _bind(function, name):
    return lambda *arguments: function(name, *arguments)


def _launch(
    name: str,
    adjoint: bool,
    source: Tensor,
    memory_input: Tensor,
    step_size: float | Tensor,
    target: Tensor,
    grad_input: Tensor,
) -> None:
    batch, size, order = source.shape
    if source.numel() == 0:
        return
    if isinstance(step_size, Tensor):
        dt, rows_per_dt = step_size.contiguous(), size
    else:
        dt, rows_per_dt = torch.full((1,), step_size, dtype=source.dtype, device=source.device), batch * size
    shared = (source, memory_input, dt, target, grad_input, order, rows_per_dt)
    block = triton.next_power_of_2(order)
    if name == "legt_euler_forward":
        _legt_kernel[(batch * size,)](*shared, ADJOINT=adjoint, BLOCK=block)
    else:
        _legs_kernel[(batch * size,)](*shared, _ALPHA[name], ADJOINT=adjoint, BLOCK=block)
