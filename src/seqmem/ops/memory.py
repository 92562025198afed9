"""Memory updates: the compiled operator or the GPU's if it supports the call, else the dense reference of ``reference.py``."""

from functools import cache
from operator import index
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from seqmem.errors import UserError
from seqmem.ops import extension, reference
from seqmem.ops.constants import constant
from seqmem.ops.discretization import ALIASES, Discretization, alpha_of, canonical_discretization
from seqmem.ops.gpu import support
from seqmem.ops.transforms import fallback_reason
from seqmem.ops.transition import checked_measure, generators


def memory_update(
    memory: Tensor,
    inputs: Tensor,
    step_size: float | Tensor,
    measure: str = "legs",
    discretization: str | float = "bilinear",
    **measure_args: float,
) -> Tensor:
    """One step of the memory of any measure, c' = A c + B f (HiPPO, equation 13).

    A step costs O(N) per memory. Zero-order hold costs O(N^2) for LegS and O(N^3) for the other measures: with a fixed step
    size, discretise once (:func:`seqmem.ops.discretize`). Differentiable in all three tensors, to any order.

    Args:
        memory: c, (B, M, N) floating point: N coefficients of each of M functions.
        inputs: f, (B, M); cast to the memory's type.
        step_size: dt, one number for all rows, or a tensor (B,) or (). An infinite step size, 1/t at t = 0, starts the memory
            with f e_0.
        measure: selects A and B, see :func:`seqmem.ops.transition`.
        discretization: forward, backward, bilinear or zoh, an alias (euler, tustin, trapezoidal, ...), or alpha of the
            generalised bilinear transform.
        measure_args: arguments of the measure.

    Returns:
        The new memory, (B, M, N).

    Raises:
        UserError: an unknown measure or discretization.
        ValueError: inconsistent shapes or devices.

    >>> memory_update(torch.zeros(1, 1, 3), torch.ones(1, 1), 0.5, "legt", 1.0)
    tensor([[[0.3704, 0.2138, 0.3450]]])
    """
    update = _find_update(measure, discretization, measure_args)
    if not isinstance(step_size, Tensor):
        if step_size == float("inf"):
            reference.check_update(memory, inputs.to(memory.dtype), step_size)
            return _initial_memory(memory, inputs)
        return _apply(update, memory, inputs, step_size)
    if _is_for_gpu(memory):
        return _apply(update, memory, inputs, step_size)
    starts = torch.isinf(step_size)
    updated = _apply(update, memory, inputs, step_size.where(~starts, 0))
    return torch.where(starts.view(-1, 1, 1), _initial_memory(memory, inputs), updated)


def _initial_memory(memory: Tensor, inputs: Tensor) -> Tensor:
    return pad(inputs.to(memory.dtype).unsqueeze(-1), (0, memory.shape[-1] - 1))


def legs_update(memory: Tensor, inputs: Tensor, step_size: float | Tensor, discretization: str | float = "bilinear") -> Tensor:
    """One step of the LegS memory, c' = A c + B f (HiPPO, Theorem 2, with its factor 1/t in ``step_size``).

    A step costs O(N) per memory, zoh, computed in float64, O(N^2). Differentiable in all three tensors, to any order. The
    compiled step is in ``csrc/legs.h``.

    Args:
        memory: c, (B, M, N) floating point: N coefficients of each of M functions.
        inputs: f, (B, M); cast to the memory's type.
        step_size: dt, one number for all rows, or a tensor (B,) or (). At time t it is 1/t, and ln((t+1)/t) for zoh.
        discretization: forward, backward, bilinear or zoh, an alias (euler, tustin, trapezoidal, ...), or alpha of the
            generalised bilinear transform.

    Returns:
        The new memory, (B, M, N).

    Raises:
        UserError: an unknown discretization.
        ValueError: inconsistent shapes or devices.

    >>> legs_update(torch.zeros(1, 1, 3), torch.ones(1, 1), 1.0, "forward")
    tensor([[[1.0000, 1.7321, 2.2361]]])
    """
    return _apply(_find_update("legs", discretization, {}), memory, inputs, step_size)


def legt_update(memory: Tensor, inputs: Tensor, step_size: float | Tensor, discretization: str = "forward") -> Tensor:
    """One forward Euler step of the LegT memory in the LMU's normalisation, c' = A c + B f (LMU, equations 1 and 2).

    A step costs O(N) per memory. Differentiable in all three tensors, to any order. The compiled step is in ``csrc/legt.h``.

    Args:
        memory: c, (B, M, N) floating point.
        inputs: f, (B, M); cast to the memory's type.
        step_size: dt divided by the length of the window, one number for all rows, or a tensor (B,) or ().
        discretization: forward, or an alias (euler, ...).

    Returns:
        The new memory, (B, M, N).

    Raises:
        UserError: another discretization; with a fixed step size, use :func:`seqmem.ops.discretize`.
        ValueError: inconsistent shapes or devices.
    """
    if canonical_discretization(discretization) != "forward":
        raise UserError(f"discretization: got '{discretization}', expected 'forward', the only one of legt_update")
    return _apply(_LMU, memory, inputs, step_size)


def paths() -> dict[str, str]:
    """Path of each operator for float32 and float64 tensors on the CPU: ``compiled``, or ``reference`` and the reason.

    >>> sorted(paths())[0]
    'diagonal_scan'
    """
    path = f"reference ({extension.REASON})" if extension.REASON else "compiled"
    names = (*extension.UPDATES, extension.ANY_MEASURE, *extension.SIGNALS, *extension.SEQUENCES, *extension.SCANS)
    return dict.fromkeys(names, path)


class _Update(NamedTuple):
    """An update's arguments for the reference, and its compiled operators for a float and for a tensor as step size."""

    measure: str
    measure_args: dict[str, float]
    discretization: Discretization
    float_operator: Any
    tensor_operator: Any


def _load_update(measure: str, discretization: Discretization, name: str) -> _Update:
    if extension.REASON:
        return _Update(measure, {}, discretization, None, None)
    operator = getattr(torch.ops.seqmem, name)
    return _Update(measure, {}, discretization, operator.default, operator.tensor)


_LMU = _load_update("lmu", "forward", "legt_euler_forward")
_LEGS_BY_DISCRETIZATION: dict[Discretization, _Update] = {
    "forward": _load_update("legs", "forward", "legs_euler_forward"),
    "backward": _load_update("legs", "backward", "legs_euler_backward"),
    "bilinear": _load_update("legs", "bilinear", "legs_trapezoidal"),
    "zoh": _load_update("legs", "zoh", "legs_zoh"),
}
_LEGS_BY_NAME = {alias: _LEGS_BY_DISCRETIZATION[name] for alias, name in ALIASES.items()}
_COMPILED_TYPES = frozenset((torch.float32, torch.float64))


def _find_update(measure: str, discretization: str | float, measure_args: dict[str, float]) -> _Update:
    if measure == "legs" and not measure_args and isinstance(discretization, str) and discretization in _LEGS_BY_NAME:
        return _LEGS_BY_NAME[discretization]
    canonical = canonical_discretization(discretization)
    if measure == "legs" and not measure_args and canonical in _LEGS_BY_DISCRETIZATION:
        return _LEGS_BY_DISCRETIZATION[canonical]
    if measure == "lmu" and not measure_args and canonical == "forward":
        return _LMU
    checked_measure(measure, measure_args)
    return _Update(measure, measure_args, canonical, None, None)


def _is_compiled(tensor: Tensor) -> bool:
    """Whether a compiled operator supports this tensor."""
    if tensor.is_cuda:
        return False
    if extension.REASON:
        extension.warn_once()
        return False
    return tensor.is_cpu and tensor.dtype in _COMPILED_TYPES and not fallback_reason()


def _is_for_gpu(tensor: Tensor) -> bool:
    """Whether the operators of :mod:`seqmem.ops.gpu` support this tensor."""
    if not tensor.is_cuda or fallback_reason():
        return False
    if support.fallback_reason():
        support.warn_once()
        return False
    return tensor.is_floating_point()


def _apply(update: _Update, memory: Tensor, inputs: Tensor, step_size: float | Tensor) -> Tensor:
    if inputs.dtype != memory.dtype:
        inputs = inputs.to(memory.dtype)
    if _is_for_gpu(memory):
        from seqmem.ops.gpu.memory_step import memory_step

        return memory_step(memory, inputs, step_size, update.measure, update.discretization, update.measure_args)
    operator = update.float_operator
    if isinstance(step_size, Tensor):
        operator = update.tensor_operator
        if step_size.dtype != memory.dtype:
            step_size = step_size.to(memory.dtype)
    alpha = alpha_of(update.discretization)
    if _is_compiled(memory):
        if isinstance(step_size, Tensor) and step_size.dim() == 0:
            step_size = step_size.expand(memory.shape[0])
        if operator is not None:
            return operator(memory, inputs, step_size)
        if alpha is not None and memory.dim() == 3:
            dt = step_size if isinstance(step_size, Tensor) else memory.new_full((memory.shape[0],), step_size)
            order = index(memory.shape[2])  # a number also in torch.compile, which traces sizes as symbols
            rows = _constant_generators(update.measure, order, tuple(sorted(update.measure_args.items())))
            return torch.ops.seqmem.quasiseparable_update(memory, inputs, dt, rows, alpha)
    return reference.update(update.measure, memory, inputs, step_size, update.discretization, **update.measure_args)


@torch.compiler.assume_constant_result
def _constant_generators(*key: Any) -> Tensor:
    return _cached_generators(*key)


@cache
@constant
def _cached_generators(measure: str, order: int, measure_args: tuple[tuple[str, float], ...]) -> Tensor:
    return generators(measure, order, **dict(measure_args))
