"""Reference of the memory updates of every measure, with dense matrices as in the papers.

Every fast implementation must agree with it: the LegS step of ``csrc/legs.h``, the LegT step of ``csrc/legt.h``, the step of
any measure of ``csrc/quasiseparable.h``, and the GPU kernels of ``gpu/updates.py``. The matrices are in ``transition.py``.

Supports any floating-point type and device, and autograd. float16 and bfloat16 are computed in float32.
"""

import torch
from torch import Tensor
from torch.linalg import solve

from seqmem.errors import UserError
from seqmem.ops.discretization import Discretization, alpha_of
from seqmem.ops.transition import transition


def update(
    measure: str,
    memory: Tensor,
    inputs: Tensor,
    step_size: float | Tensor,
    discretization: Discretization = "bilinear",
    **measure_args: float,
) -> Tensor:
    """One discretised step of c' = A c + B f (HiPPO, equation 13 except for zero-order hold).

    Args:
        measure: selects A and B, see :func:`seqmem.ops.transition`.
        memory: c, (B, M, N) floating point.
        inputs: f, (B, M) of the memory's type.
        step_size: dt, a number, or () or (B,) of the memory's type.
        discretization: forward, backward, bilinear, zoh, or alpha of the generalised bilinear transform.
        measure_args: arguments of the measure.

    Returns:
        The new memory, (B, M, N).

    Raises:
        UserError: inconsistent shapes or types.
    """
    is_shared = not isinstance(step_size, Tensor) or step_size.dim() == 0
    expanded = step_size.expand(memory.shape[0]) if isinstance(step_size, Tensor) and step_size.dim() == 0 else step_size
    check_update(memory, inputs, expanded)
    if memory.numel() == 0:
        return memory + inputs[..., None]
    alpha = alpha_of(discretization)
    dtype = torch.float64 if alpha is None else torch.promote_types(memory.dtype, torch.float32)
    A, B = (matrix.to(memory.device, dtype) for matrix in transition(measure, memory.shape[-1], **measure_args))
    identity = torch.eye(len(B), dtype=dtype, device=memory.device)

    # The vectors c are rows, hence the transposes: (B M, N) with one dt for all rows, (B, M, N) with one dt per batch element.
    c, f = memory.to(dtype), inputs.to(dtype)[..., None]
    dt = torch.as_tensor(step_size, dtype=dtype, device=memory.device)
    if is_shared:
        c, f = c.flatten(0, 1), f.flatten(0, 1)
    else:
        dt = dt[:, None, None]

    if alpha is None:
        exponential = torch.matrix_exp(dt * A)
        c = c @ exponential.mT + f * solve(A, (exponential - identity) @ B[:, None]).mT
    else:
        c = c + (1 - alpha) * dt * (c @ A.T) + dt * f * B
        if alpha > 0:
            c = solve(identity - alpha * dt * A.T, c, left=False)
    return c.reshape(memory.shape).to(memory.dtype)


def legs_function_approximation(signal: Tensor, order: int) -> Tensor:
    """LegS coefficients of a whole signal: (f_0, 0, ...) at the first sample, then bilinear steps of 1/t, t = 1, 2, ...

    The fast implementation is ``legs_projection`` in ``csrc/legs.h``.

    Args:
        signal: (B, T) floating point, T > 0.
        order: N > 0.

    Returns:
        (B, N)
    """
    memory = torch.nn.functional.pad(signal[:, :1, None], (0, order - 1))
    for t in range(1, signal.shape[1]):
        memory = update("legs", memory, signal[:, t, None], 1 / t, "bilinear")
    return memory[:, 0]


def check_update(memory: Tensor, inputs: Tensor, step_size: float | Tensor) -> None:
    """Check shapes, types and devices of an update.

    Raises:
        UserError: inconsistent shapes, types or devices.
    """
    if memory.dim() != 3 or not memory.is_floating_point():
        raise UserError(f"memory: got {describe(memory)}, expected (B, M, N) floating point")
    if inputs.shape != memory.shape[:2] or inputs.dtype != memory.dtype or inputs.device != memory.device:
        raise UserError(f"inputs: got {describe(inputs)}, expected (B, M) like the memory {describe(memory)}")
    if isinstance(step_size, Tensor) and (
        step_size.shape != memory.shape[:1] or step_size.dtype != memory.dtype or step_size.device != memory.device
    ):
        raise UserError(f"step_size: got {describe(step_size)}, expected a number or (B,) like the memory {describe(memory)}")


def check_signal(signal: Tensor, order: int) -> None:
    """Check the shape and type of a signal, and the memory order.

    Raises:
        UserError: a signal without samples or of another shape, or an order that is not positive.
    """
    if signal.dim() not in (1, 2) or signal.shape[-1] == 0 or not signal.is_floating_point():
        raise UserError(f"signal: got {describe(signal)}, expected (T,) or (B, T) floating point with T > 0")
    if order < 1:
        raise UserError(f"order: got {order}, expected above 0")


def describe(tensor: Tensor) -> str:
    """Format shape, type and device for a message."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')} on {tensor.device}"
