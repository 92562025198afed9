"""What every fast path must agree with: the updates as the papers write them, with dense matrices.

Any floating-point type and device, differentiable by autograd. float16 and bfloat16 are computed in float32.
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
    """One step of c' = A c + B f, discretised (HiPPO, equation 13 for all but zero-order hold).

    Args:
        measure: names A and B, see :func:`seqmem.ops.transition`.
        memory: c, (B, M, N) floating point.
        inputs: f, (B, M) of the memory's type.
        step_size: dt, a number, or () or (B,) of the memory's type.
        discretization: how the equation becomes a step.
        measure_args: of the measure.

    Returns:
        The new memory, (B, M, N).

    Raises:
        UserError: shapes or types that do not fit together.
    """
    together = not isinstance(step_size, Tensor) or step_size.dim() == 0
    expanded = step_size.expand(memory.shape[0]) if isinstance(step_size, Tensor) and step_size.dim() == 0 else step_size
    check_update(memory, inputs, expanded)
    if memory.numel() == 0:
        return memory + inputs[..., None]
    given = memory.dtype
    alpha = alpha_of(discretization)
    kind = torch.float64 if alpha is None else torch.promote_types(given, torch.float32)
    A, B = (matrix.to(memory.device, kind) for matrix in transition(measure, memory.shape[-1], **measure_args))
    identity = torch.eye(len(B), dtype=kind, device=memory.device)

    # Rows are vectors, hence the transposes. Rows that alpha dt are one group (R, N), else there is one group (M, N) to a dt.
    x, f = memory.to(kind), inputs.to(kind)[..., None]
    dt = torch.as_tensor(step_size, dtype=kind, device=memory.device)
    if not together:
        dt = dt[:, None, None]
    else:
        x, f = x.flatten(0, 1), f.flatten(0, 1)

    if alpha is None:
        held = torch.matrix_exp(dt * A)
        y = x @ held.mT + f * solve(A, (held - identity) @ B[:, None]).mT
    else:
        explicit = x + (1 - alpha) * dt * (x @ A.T) + dt * f * B
        y = solve(identity - alpha * dt * A.T, explicit, left=False) if alpha > 0 else explicit
    return y.reshape(memory.shape).to(given)


def legs_function_approximation(signal: Tensor, order: int) -> Tensor:
    """LegS coefficients of a whole signal: (f_0, 0, ...) at the first sample, then bilinear steps of 1/t, t = 1, 2, ...

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
    """Refuse shapes, types and devices that do not fit together.

    Raises:
        UserError: saying what was given and what was wanted.
    """
    if memory.dim() != 3 or not memory.is_floating_point():
        raise UserError(f"the memory must be (B, M, N) floating point, got {describe(memory)}")
    if inputs.shape != memory.shape[:2] or inputs.dtype != memory.dtype or inputs.device != memory.device:
        raise UserError(f"the inputs must be (B, M) like the memory {describe(memory)}, got {describe(inputs)}")
    if isinstance(step_size, Tensor) and (
        step_size.shape != memory.shape[:1] or step_size.dtype != memory.dtype or step_size.device != memory.device
    ):
        raise UserError(f"the step size must be a number or (B,) like the memory {describe(memory)}, got {describe(step_size)}")


def check_signal(signal: Tensor, order: int) -> None:
    """Refuse a signal that has no sample, and an order that is not positive.

    Raises:
        UserError: saying what was given and what was wanted.
    """
    if signal.dim() not in (1, 2) or signal.shape[-1] == 0 or not signal.is_floating_point():
        raise UserError(f"the signal must be (T,) or (B, T) floating point with T > 0, got {describe(signal)}")
    if order < 1:
        raise UserError(f"the memory order must be positive, got {order}")


def describe(tensor: Tensor) -> str:
    """Shape, type and device in a few words."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')} on {tensor.device}"
