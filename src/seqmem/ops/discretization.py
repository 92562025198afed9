"""Discretizations of a linear differential equation, and their names in the literature."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from seqmem.arguments import plain
from seqmem.errors import UserError, suggestion
from seqmem.ops.transforms import has_tangent, values

Discretization = Literal["forward", "backward", "bilinear", "zoh"] | float
"""A float is alpha of the generalised bilinear transform: 0 is forward, 0.5 bilinear, 1 backward."""

DiscretizationName = (
    Literal[
        "forward",
        "backward",
        "bilinear",
        "zoh",
        "euler",
        "forward_euler",
        "forward_diff",
        "backward_euler",
        "backward_diff",
        "tustin",
        "trapezoid",
        "trapezoidal",
    ]
    | Annotated[float, Field(ge=0, le=1)]
)

DISCRETIZATIONS: tuple[Literal["forward", "backward", "bilinear", "zoh"], ...] = ("forward", "backward", "bilinear", "zoh")

ALIASES: dict[str, Literal["forward", "backward", "bilinear", "zoh"]] = {name: name for name in DISCRETIZATIONS} | {
    "euler": "forward",
    "forward_euler": "forward",
    "forward_diff": "forward",
    "backward_euler": "backward",
    "backward_diff": "backward",
    "tustin": "bilinear",
    "trapezoid": "bilinear",
    "trapezoidal": "bilinear",
}

_ALPHAS: dict[Discretization, float] = {"forward": 0.0, "bilinear": 0.5, "backward": 1.0}


def canonical_discretization(name: str | float) -> Discretization:
    """Resolve a name or alpha to one of ``DISCRETIZATIONS``, or to alpha of the generalised bilinear transform.

    Raises:
        UserError: an unknown name, an alpha that is not between 0 and 1, or a different type.
    """
    if not isinstance(name, str | int | float):
        name = plain(name)  # a number of NumPy
    if isinstance(name, bool) or not isinstance(name, str | int | float):
        raise UserError(f"discretization: got {name!r}, expected a known name or alpha from 0 (forward) to 1 (backward)")
    if isinstance(name, int | float):
        if not 0 <= name <= 1:
            raise UserError(f"discretization: got {name}, expected alpha between 0 (forward) and 1 (backward)")
        return next((known for known, alpha in _ALPHAS.items() if alpha == name), float(name))
    if name not in ALIASES:
        raise UserError(f"discretization: got '{name}', expected a known name or alpha{suggestion(name, ALIASES)}")
    return ALIASES[name]


def alpha_of(discretization: Discretization) -> float | None:
    """Return alpha, the implicit fraction of a step of the generalised bilinear transform; None for zero-order hold."""
    if isinstance(discretization, float):
        return discretization
    return _ALPHAS.get(discretization)


def discretize(A: Tensor, B: Tensor, step_size: float, discretization: str | float) -> tuple[Tensor, Tensor]:
    """Discretise c' = A c + B f with a fixed step size: c = A_d c + B_d f (HiPPO, appendix B.3).

    Args:
        A: (N, N).
        B: (N,).
        step_size: dt.
        discretization: forward, backward, bilinear, zoh, an alias of these, or alpha of the generalised bilinear transform.

    Returns:
        A_d (N, N) and B_d (N,), float64; differentiable in A and B.

    Raises:
        UserError: an unknown discretization, or A and B of different shapes.
    """
    method = canonical_discretization(discretization)
    if A.dim() != 2 or A.shape != 2 * B.shape:
        raise UserError(f"A, B: got shapes {tuple(A.shape)} and {tuple(B.shape)}, expected (N, N) and (N,)")
    A, B = A.double(), B.double()
    alpha = alpha_of(method)
    if alpha is None:
        # The exponential of [[A, B], [0, 0]] dt contains both, without an inverse of A.
        augmented = torch.cat([torch.cat([A, B[:, None]], 1), A.new_zeros(1, len(B) + 1)]) * step_size
        exponential = _exponential(augmented)
        return exponential[:-1, :-1].clone(), exponential[:-1, -1].clone()
    identity = torch.eye(len(B), dtype=A.dtype, device=A.device)
    implicit = identity - alpha * step_size * A
    explicit = identity + (1 - alpha) * step_size * A
    return torch.linalg.solve(implicit, explicit), torch.linalg.solve(implicit, step_size * B)


def _exponential(matrix: Tensor) -> Tensor:
    """Compute the exponential of a matrix (N, N), by torch if its derivatives are needed and else by SciPy."""
    if matrix.requires_grad or has_tangent(matrix) or values(matrix) is not matrix:
        return torch.linalg.matrix_exp(matrix)
    from scipy.linalg import expm

    return torch.from_numpy(expm(matrix.cpu().numpy())).to(matrix.device)
