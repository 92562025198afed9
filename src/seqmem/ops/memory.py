"""The memory updates: the compiled operator where it covers the call, else the reference."""

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from seqmem.errors import UserError
from seqmem.ops import extension, reference
from seqmem.ops.discretization import ALIASES, Discretization, alpha_of, canonical_discretization
from seqmem.ops.reference import check_signal
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

    O(N) a row but for zero-order hold, which costs O(N^2) for LegS and O(N^3) for the others: with a fixed step, discretise
    once (:func:`seqmem.ops.discretize`). Differentiable in all three tensors, to any order.

    Args:
        memory: c, (B, M, N) floating point: N coefficients for each of M functions.
        inputs: f, (B, M); taken to the memory's type.
        step_size: dt, one number for all rows, or a tensor (B,) or (). An infinite one, the 1/t of t = 0, starts the memory:
            it becomes f e_0.
        measure: names A and B, see :func:`seqmem.ops.transition`.
        discretization: forward, backward, bilinear or zoh, another name they go by (euler, tustin, trapezoidal, ...), or alpha
            of the general bilinear transform.
        measure_args: of the measure.

    Returns:
        The new memory, (B, M, N).

    Raises:
        UserError: an unknown measure or discretization.
        ValueError: shapes or devices that do not fit together.

    >>> memory_update(torch.zeros(1, 1, 3), torch.ones(1, 1), 0.5, "legt", 1.0)
    tensor([[[0.3704, 0.2138, 0.3450]]])
    """
    if not isinstance(step_size, Tensor):
        if step_size == float("inf"):
            return _started(memory, inputs)
        return _update(_method_of(measure, discretization, measure_args), memory, inputs, step_size)
    starts = torch.isinf(step_size)
    updated = _update(_method_of(measure, discretization, measure_args), memory, inputs, step_size.where(~starts, 0))
    return torch.where(starts.view(-1, 1, 1), _started(memory, inputs), updated)


def _started(memory: Tensor, inputs: Tensor) -> Tensor:
    return pad(inputs.to(memory.dtype).unsqueeze(-1), (0, memory.shape[-1] - 1))


def legs_update(memory: Tensor, inputs: Tensor, step_size: float | Tensor, discretization: str | float = "bilinear") -> Tensor:
    """One step of the LegS memory, c' = A c + B f (HiPPO, theorem 2, its 1/t being the caller's ``step_size``).

    O(N) a row; zoh, computed in float64, O(N^2). Differentiable in all three tensors, to any order.

    Args:
        memory: c, (B, M, N) floating point: N coefficients for each of M functions.
        inputs: f, (B, M); taken to the memory's type.
        step_size: dt, one number for all rows, or a tensor (B,) or (). At time t it is 1/t, and ln((t+1)/t) for zoh.
        discretization: forward, backward, bilinear or zoh, another name they go by (euler, tustin, trapezoidal, ...), or alpha
            of the general bilinear transform.

    Returns:
        The new memory, (B, M, N).

    Raises:
        UserError: an unknown discretization.
        ValueError: shapes or devices that do not fit together.

    >>> legs_update(torch.zeros(1, 1, 3), torch.ones(1, 1), 1.0, "forward")
    tensor([[[1.0000, 1.7321, 2.2361]]])
    """
    return _update(_method_of("legs", discretization, {}), memory, inputs, step_size)


def legt_update(memory: Tensor, inputs: Tensor, step_size: float | Tensor, discretization: str = "forward") -> Tensor:
    """One step of the LegT memory in the LMU's normalisation, c' = A c + B f (LMU, equations 1 and 2), by forward Euler.

    O(N) a row. Differentiable in all three tensors, to any order.

    Args:
        memory: c, (B, M, N) floating point.
        inputs: f, (B, M); taken to the memory's type.
        step_size: dt over the length of the window, one number for all rows, or a tensor (B,) or ().
        discretization: forward, or another name it goes by (euler, ...).

    Returns:
        The new memory, (B, M, N).

    Raises:
        UserError: any other discretization: with a fixed window the matrices are best discretised once, from ``transition``.
        ValueError: shapes or devices that do not fit together.
    """
    if canonical_discretization(discretization) != "forward":
        raise UserError(f"legt_update steps forward only, got discretization '{discretization}'; choose from: forward")
    return _update(_LEGT, memory, inputs, step_size)


def legs_function_approximation(signal: Tensor, order: int) -> Tensor:
    """The LegS coefficients of a whole signal: (f_0, 0, ...) at the first sample, then bilinear steps of 1/t, t = 1, 2, ...

    The signal on [0, 1] is close to sum_n c_n sqrt(2n+1) P_n(2x - 1).

    Args:
        signal: (T,) or (B, T) floating point, T > 0.
        order: N > 0.

    Returns:
        (N,) or (B, N)

    Raises:
        UserError: another shape, or an order that is not positive.
    """
    check_signal(signal, order)
    if _compiled(signal):
        return torch.ops.seqmem.legs_function_approx_trapezoidal.default(signal, order)
    rows = signal if signal.dim() == 2 else signal[None]
    return reference.legs_function_approximation(rows, order).reshape(*signal.shape[:-1], order)


def paths() -> dict[str, str]:
    """Which path each operator takes for float32 and float64 tensors on the CPU.

    >>> sorted(paths())[0]
    'gru_sequence'
    """
    path = f"reference ({extension.REASON})" if extension.REASON else "compiled"
    return dict.fromkeys(
        (*extension.UPDATES, extension.ANY_MEASURE, "legs_function_approx_trapezoidal", *extension.SEQUENCES), path
    )


class _Method(NamedTuple):
    """An update as the reference knows it, and its compiled operators for a number and for a tensor as step size."""

    measure: str
    measure_args: dict[str, float]
    discretization: Discretization
    by_number: Any
    by_tensor: Any


def _method(measure: str, discretization: Discretization, name: str) -> _Method:
    if extension.REASON:
        return _Method(measure, {}, discretization, None, None)
    operator = getattr(torch.ops.seqmem, name)
    return _Method(measure, {}, discretization, operator.default, operator.tensor)


_LEGT = _method("lmu", "forward", "legt_euler_forward")
_LEGS_METHODS: dict[Discretization, _Method] = {
    "forward": _method("legs", "forward", "legs_euler_forward"),
    "backward": _method("legs", "backward", "legs_euler_backward"),
    "bilinear": _method("legs", "bilinear", "legs_trapezoidal"),
    "zoh": _method("legs", "zoh", "legs_zoh"),
}
_LEGS = {alias: _LEGS_METHODS[name] for alias, name in ALIASES.items()}
_COMPILED_TYPES = frozenset((torch.float32, torch.float64))


def _method_of(measure: str, discretization: str | float, measure_args: dict[str, float]) -> _Method:
    if measure == "legs" and not measure_args and discretization in _LEGS:
        return _LEGS[discretization]
    canonical = canonical_discretization(discretization)
    if measure == "legs" and not measure_args and canonical in _LEGS_METHODS:
        return _LEGS_METHODS[canonical]
    if measure == "lmu" and not measure_args and canonical == "forward":
        return _LEGT
    checked_measure(measure, measure_args)
    return _Method(measure, measure_args, canonical, None, None)


def _compiled(tensor: Tensor, updates: bool = False) -> bool:
    """Whether the compiled operators cover this tensor: on a GPU, the O(N) updates of LegS and LegT alone have kernels."""
    if extension.REASON:
        extension.warn_once()
        return False
    return tensor.dtype in _COMPILED_TYPES and (tensor.is_cpu or (updates and extension.ON_GPU and tensor.is_cuda))


def _update(method: _Method, memory: Tensor, inputs: Tensor, step_size: float | Tensor) -> Tensor:
    if inputs.dtype != memory.dtype:
        inputs = inputs.to(memory.dtype)
    operator = method.by_number
    if isinstance(step_size, Tensor):
        operator = method.by_tensor
        if step_size.dtype != memory.dtype:
            step_size = step_size.to(memory.dtype)
    alpha = alpha_of(method.discretization)
    if _compiled(memory, updates=operator is not None and alpha is not None):
        if isinstance(step_size, Tensor) and step_size.dim() == 0:
            step_size = step_size.expand(memory.shape[0])
        if operator is not None:
            return operator(memory, inputs, step_size)
        if alpha is not None and memory.dim() == 3:
            dt = step_size if isinstance(step_size, Tensor) else memory.new_full((memory.shape[0],), step_size)
            numbers = _generators(method.measure, memory.shape[2], tuple(sorted(method.measure_args.items())))
            return torch.ops.seqmem.quasiseparable_update(memory, inputs, dt, numbers, alpha)
    return reference.update(method.measure, memory, inputs, step_size, method.discretization, **method.measure_args)


@cache
def _generators(measure: str, order: int, measure_args: tuple[tuple[str, float], ...]) -> Tensor:
    with torch.device("cpu"), torch.inference_mode(False):  # kept for whatever comes later
        return generators(measure, order, **dict(measure_args))
