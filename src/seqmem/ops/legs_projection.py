"""LegS coefficients of a signal that comes in pieces: the choice of an operator, and the reference, a loop over samples."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from seqmem.ops import extension
from seqmem.ops.discretization import Discretization, alpha_of
from seqmem.ops.gpu import support
from seqmem.ops.legs_columns import legs_columns
from seqmem.ops.legs_hold import legs_hold
from seqmem.ops.memory import legs_update
from seqmem.ops.reference import check_signal, describe
from seqmem.ops.transforms import fallback_reason, register_gradient
from seqmem.ops.transition import checked_order

HOLD_NUMBERS = 2**14
"""Samples from one result to the next times N, from which on zero-order hold by whole pieces is faster than by steps."""


def legs_projection(
    signal: Tensor, memory: Tensor, start: int, discretization: Discretization = "bilinear", every: int = 0
) -> tuple[Tensor, Tensor]:
    """Advance LegS coefficients over the next samples of a signal (HiPPO, Theorem 2).

    The first sample of a signal starts the coefficients with (f_0, 0, ...). Step t = 1, 2, ... has the size 1/t, or
    ln((t+1)/t) for zero-order hold. Linear and differentiable to any order. A step costs O(N): on the CPU in
    ``csrc/projection.cpp``, on a GPU by a kernel of ``gpu/projection.py``. Zero-order hold is computed in float64 over many
    samples at once by ``legs_hold.py``; on the CPU between few samples also by steps of O(N^2). Where no kernel can run,
    ``legs_columns.py`` takes many samples at once too.

    Args:
        signal: (B, T) floating point, T > 0. Half precision is computed in float32 or float64.
            From sample 2^23 - 128 on, float32 is computed in float64 too, as it has no numbers for 2t + 1.
        memory: (B, N) of the signal's type and device, the coefficients before its first sample; unused if ``start`` is 0.
        start: number of samples before this piece.
        discretization: forward, backward, bilinear, zoh, or alpha of the general bilinear transform.
        every: keep the coefficients after each multiple of ``every`` samples, counted from the first piece on; 0 for none.

    Returns:
        The kept coefficients (B, K, N), and those after the last sample (B, N).

    Raises:
        ValueError: shapes, types or numbers that do not match.
    """
    alpha = alpha_of(discretization)
    on_gpu = signal.is_cuda and not support.fallback_reason()
    if fallback_reason():
        return _by_torch(signal, memory, start, discretization, every)
    if alpha is None and not extension.FORCED and (on_gpu or extension.REASON or _is_long(signal, memory, every)):
        _check(signal, memory, start, every)
        return legs_hold(signal, memory, start, every)
    if on_gpu and alpha is not None:
        from seqmem.ops.gpu.projection import legs_scan

        _check(signal, memory, start, every)
        return legs_scan(signal, memory, start, alpha, every)
    if signal.is_cuda:
        support.warn_once()
        return _by_torch(signal, memory, start, discretization, every)
    if extension.REASON:
        extension.warn_once()
        return _by_torch(signal, memory, start, discretization, every)
    operator, settings = torch.ops.seqmem.legs_projection.default, (start, alpha, every)
    if not _is_converted(signal):
        return operator(signal, memory, *settings)
    _check(signal, memory, start, every)
    kept, after = operator(signal.cpu().double(), memory.cpu().double(), *settings)
    return kept.to(signal.dtype).to(signal.device), after.to(signal.dtype).to(signal.device)


def legs_function_approximation(signal: Tensor, order: int) -> Tensor:
    """LegS coefficients of a whole signal: (f_0, 0, ...) at the first sample, then bilinear steps of 1/t, t = 1, 2, ...

    They approximate the signal on [0, 1] by sum_n c_n sqrt(2n+1) P_n(2x - 1).

    Args:
        signal: (T,) or (B, T) floating point, T > 0.
        order: N > 0.

    Returns:
        (N,) or (B, N)

    Raises:
        UserError: a signal of another shape, or an order that is not a positive whole number.
    """
    order = checked_order(order)
    check_signal(signal, order)
    native = signal.is_cpu and signal.dtype in (torch.float32, torch.float64)
    if native and not extension.REASON and not fallback_reason():
        return torch.ops.seqmem.legs_function_approx_trapezoidal.default(signal, order)
    rows = signal if signal.dim() == 2 else signal[None]
    memory = legs_projection(rows, rows.new_zeros(rows.shape[0], order), 0)[1]
    return memory.reshape(*signal.shape[:-1], order)


def _by_torch(signal: Tensor, memory: Tensor, start: int, discretization: Discretization, every: int) -> tuple[Tensor, Tensor]:
    """Compute the first N steps and zero-order hold sample by sample, and the others coefficient by coefficient."""
    alpha, first = alpha_of(discretization), max(0, memory.shape[1] + 1 - start)
    if extension.FORCED or alpha is None or first >= signal.shape[1]:
        return legs_projection_reference(signal, memory, start, discretization, every)
    kept = []
    if first > 0:
        early, memory = legs_projection_reference(signal[:, :first], memory, start, discretization, every)
        kept.append(early)
    late, memory = legs_columns(signal[:, first:], memory, start + first, alpha, every)
    return torch.cat([*kept, late], 1), memory


def _check(signal: Tensor, memory: Tensor, start: int, every: int) -> None:
    """Check arguments like the compiled operator.

    Raises:
        ValueError: shapes, types or numbers that do not match.
    """
    if signal.dim() != 2 or signal.shape[1] == 0 or not signal.is_floating_point():
        raise ValueError(f"signal: got {describe(signal)}, expected (B, T) floating point with T > 0")
    if memory.dim() != 2 or memory.shape[1] == 0 or memory.shape[0] != signal.shape[0]:
        raise ValueError(f"memory: got {describe(memory)}, expected (B, N) with N > 0 for a signal {describe(signal)}")
    if (memory.dtype, memory.device) != (signal.dtype, signal.device):
        raise ValueError(f"memory: got {memory.dtype} on {memory.device}, expected {signal.dtype} on {signal.device}")
    if start < 0 or every < 0:
        raise ValueError(f"start, every: got {start} and {every}, expected 0 or above")


def _is_long(signal: Tensor, memory: Tensor, every: int) -> bool:
    """Return whether zero-order hold by whole pieces is faster than by steps."""
    length = signal.shape[-1] if every <= 0 else min(signal.shape[-1], every)
    return signal.is_cpu and length * memory.shape[-1] > HOLD_NUMBERS


def _is_converted(signal: Tensor) -> bool:
    """Return whether a signal is computed in float64 on the CPU, where the operator runs."""
    is_native = signal.device.type in ("cpu", "meta") and signal.dtype in (torch.float32, torch.float64)
    return signal.is_floating_point() and not is_native


def legs_projection_reference(
    signal: Tensor, memory: Tensor, start: int, discretization: Discretization = "bilinear", every: int = 0
) -> tuple[Tensor, Tensor]:
    """Compute :func:`legs_projection` by :func:`seqmem.ops.legs_update`, sample by sample."""
    kept = []
    for t, sample in enumerate(signal.T, start=start):
        if t == 0:
            memory = pad(sample[:, None], (0, memory.shape[1] - 1))
        else:
            step_size = math.log1p(1 / t) if discretization == "zoh" else 1 / t
            memory = legs_update(memory[:, None], sample[:, None], step_size, discretization)[:, 0]
        if every > 0 and (t + 1) % every == 0:
            kept.append(memory)
    return torch.stack(kept, 1) if kept else memory.new_zeros(memory.shape[0], 0, memory.shape[1]), memory


def _register() -> None:
    """Register shapes and gradients: the operator and its transpose are the gradients of each other."""
    operator, transpose = torch.ops.seqmem.legs_projection.default, torch.ops.seqmem.legs_projection_adjoint.default

    def shapes(signal: Tensor, memory: Tensor, start: int, alpha: float | None, every: int) -> tuple[Tensor, Tensor]:
        count = (start + signal.shape[1]) // every - start // every if every > 0 else 0
        return memory.new_empty(memory.shape[0], count, memory.shape[1]), memory.new_empty(memory.shape)

    def transpose_shapes(grad_kept: Tensor, grad_memory: Tensor, length: int, *settings: Any) -> tuple[Tensor, Tensor]:
        return grad_memory.new_empty(grad_memory.shape[0], length), grad_memory.new_empty(grad_memory.shape)

    def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.length, ctx.settings = inputs[0].shape[1], inputs[2:]

    def backward(ctx: Any, grad_kept: Tensor, grad_memory: Tensor) -> tuple[Tensor | None, ...]:
        return *transpose(grad_kept, grad_memory, ctx.length, *ctx.settings), None, None, None

    def save_transpose(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.settings = inputs[3:]

    def transpose_backward(ctx: Any, grad_signal: Tensor, grad_memory: Tensor) -> tuple[Tensor | None, ...]:
        return *operator(grad_signal, grad_memory, *ctx.settings), None, None, None, None

    extension.register_shapes("seqmem::legs_projection", shapes)
    extension.register_shapes("seqmem::legs_projection_adjoint", transpose_shapes)
    register_gradient("seqmem::legs_projection", backward, save)
    register_gradient("seqmem::legs_projection_adjoint", transpose_backward, save_transpose)


if not extension.REASON:
    _register()
