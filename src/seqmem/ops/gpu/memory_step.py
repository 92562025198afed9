"""The operator ``seqmem::memory_step``: one memory update for CUDA tensors, of any measure and discretization.

Needs no compiled library. It takes settings, not matrices, so that fake tensors and exported programs never meet a constant.

y = step(x, u, dt) is linear in (x, u), and its transpose adjoint(g, dt) = (gx, gu) is a second operator: each is the gradient
of the other, to any order. ``csrc/updates_autograd.cpp`` derives the gradient of the step size,
    alpha: w . (A v + B u) with v = (1 - alpha) x + alpha y and w = (1 - alpha) g + alpha gx; zero-order hold: g . (A y + B u).
"""

from typing import Any

import torch
import triton
from torch import Tensor

from seqmem.ops import extension
from seqmem.ops.discretization import Discretization, alpha_of
from seqmem.ops.gpu.hold import hold, hold_adjoint
from seqmem.ops.gpu.updates import update, update_adjoint
from seqmem.ops.reference import check_update
from seqmem.ops.transforms import register_gradient

_SETTINGS = "Tensor? step_sizes, float step_size, str measure, str[] names, float[] values, float? alpha"

library = torch.library.Library("seqmem", "FRAGMENT")
"""The operators for CUDA tensors that Python defines."""

DEVICES = ("CUDA", "CPU") if triton.knobs.runtime.interpret else ("CUDA",)
"""Dispatch keys of the kernels; Triton's interpreter runs them on the CPU."""


def memory_step(
    memory: Tensor,
    inputs: Tensor,
    step_size: float | Tensor,
    measure: str,
    discretization: Discretization,
    measure_args: dict[str, float],
) -> Tensor:
    """Compute one step like :func:`seqmem.ops.reference.update`, and start memories whose step size is infinite.

    Half precision is computed in float32. No call waits for the device.
    """
    dtype = torch.promote_types(memory.dtype, torch.float32)
    sizes = None
    if isinstance(step_size, Tensor):
        sizes = step_size.expand(memory.shape[:1]) if step_size.dim() == 0 else step_size
        sizes, step_size = sizes.to(dtype), 0.0
    names, values = list(measure_args), [float(value) for value in measure_args.values()]
    alpha = alpha_of(discretization)
    operator = torch.ops.seqmem.memory_step.default
    return operator(memory.to(dtype), inputs.to(dtype), sizes, step_size, measure, names, values, alpha).to(memory.dtype)


def _step(
    memory: Tensor,
    inputs: Tensor,
    sizes: Tensor | None,
    size: float,
    measure: str,
    names: list[str],
    values: list[float],
    alpha: float | None,
) -> Tensor:
    check_update(memory, inputs, size if sizes is None else sizes)
    if memory.numel() == 0:
        return torch.empty_like(memory)
    settings = tuple(zip(names, values, strict=True))
    if alpha is None:
        return hold(memory, inputs, sizes, size, measure, settings)
    return update(memory, inputs, sizes, size, measure, settings, alpha)


def _adjoint(
    grad: Tensor,
    sizes: Tensor | None,
    size: float,
    measure: str,
    names: list[str],
    values: list[float],
    alpha: float | None,
) -> tuple[Tensor, Tensor]:
    if grad.numel() == 0:
        return torch.empty_like(grad), grad.new_zeros(grad.shape[:2])
    settings = tuple(zip(names, values, strict=True))
    if alpha is None:
        return hold_adjoint(grad, sizes, size, measure, settings)
    return update_adjoint(grad, sizes, size, measure, settings, alpha)


def _step_shapes(memory: Tensor, inputs: Tensor, sizes: Tensor | None, size: float, *settings: Any) -> Tensor:
    check_update(memory, inputs, size if sizes is None else sizes)
    return memory.new_empty(memory.shape)


def _adjoint_shapes(grad: Tensor, *settings: Any) -> tuple[Tensor, Tensor]:
    return grad.new_empty(grad.shape), grad.new_empty(grad.shape[:2])


def _step_size_gradient(sizes: Tensor, settings: Any, grads: Any, step: Any) -> Tensor:
    """Compute the gradient of step sizes (B,), 0 where an infinite one starts the memory.

    Args:
        sizes: (B,).
        settings: size, measure, names, values and alpha of the operator.
        grads: g and gx.
        step: x, u and y.
    """
    (_, *measure, alpha), (grad, grad_memory), (memory, inputs, updated) = settings, grads, step
    v = updated if alpha is None else torch.lerp(memory, updated, alpha)
    w = grad if alpha is None else torch.lerp(grad, grad_memory, alpha)
    derivative = torch.ops.seqmem.memory_step.default(v, inputs, None, 1.0, *measure, 0.0) - v
    return (w * derivative).sum((1, 2)).masked_fill(sizes.isinf(), 0)


def _save_step(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    memory, memory_input, sizes, *ctx.settings = inputs
    learned = sizes is not None and ctx.needs_input_grad[2]
    ctx.save_for_backward(sizes, *((memory, memory_input, output) if learned else ()))


def _step_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    sizes, *saved = ctx.saved_tensors
    grad_memory, grad_input = torch.ops.seqmem.memory_step_adjoint.default(grad, sizes, *ctx.settings)
    grad_sizes = _step_size_gradient(sizes, ctx.settings, (grad, grad_memory), saved) if saved else None
    return grad_memory, grad_input, grad_sizes, None, None, None, None, None


def _save_adjoint(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    grad, sizes, *ctx.settings = inputs
    learned = sizes is not None and ctx.needs_input_grad[1]
    ctx.save_for_backward(sizes, *((grad, output[0]) if learned else ()))


def _adjoint_backward(ctx: Any, memory: Tensor, inputs: Tensor) -> tuple[Tensor | None, ...]:
    sizes, *saved = ctx.saved_tensors
    updated = torch.ops.seqmem.memory_step.default(memory, inputs, sizes, *ctx.settings)
    grad_sizes = _step_size_gradient(sizes, ctx.settings, saved, (memory, inputs, updated)) if saved else None
    return updated, grad_sizes, None, None, None, None, None


def _register() -> None:
    tags = (torch.Tag.pt2_compliant_tag,)
    library.define(f"memory_step(Tensor memory, Tensor inputs, {_SETTINGS}) -> Tensor", tags=tags)
    library.define(f"memory_step_adjoint(Tensor grad, {_SETTINGS}) -> (Tensor, Tensor)", tags=tags)
    for device in DEVICES:
        library.impl("memory_step", _step, device)
        library.impl("memory_step_adjoint", _adjoint, device)
    extension.register_shapes("seqmem::memory_step", _step_shapes)
    extension.register_shapes("seqmem::memory_step_adjoint", _adjoint_shapes)
    register_gradient("seqmem::memory_step", _step_backward, _save_step)
    register_gradient("seqmem::memory_step_adjoint", _adjoint_backward, _save_adjoint)


_register()
