"""How a differential equation becomes a step, and what else the literature calls it."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from seqmem.errors import UserError, suggestion

Discretization = Literal["forward", "backward", "bilinear", "zoh"] | float
"""A float is the general bilinear transform's alpha: 0 is forward, 0.5 bilinear, 1 backward."""

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
    """The one of ``DISCRETIZATIONS`` that ``name`` means, or the alpha of a general bilinear transform.

    Raises:
        UserError: a name that no discretization goes by, or a number that is not between 0 and 1.
    """
    if isinstance(name, int | float):
        if not 0 <= name <= 1:
            raise UserError(f"the discretization's alpha must be between 0 (forward) and 1 (backward), got {name}")
        return next((known for known, alpha in _ALPHAS.items() if alpha == name), float(name))
    if name not in ALIASES:
        raise UserError(f"there is no discretization '{name}'{suggestion(name, ALIASES)}")
    return ALIASES[name]


def alpha_of(discretization: Discretization) -> float | None:
    """Alpha, the part of a step that a general bilinear transform takes implicitly; None for zero-order hold."""
    if isinstance(discretization, float):
        return discretization
    return _ALPHAS.get(discretization)


def discretize(A: Tensor, B: Tensor, step_size: float, discretization: str | float) -> tuple[Tensor, Tensor]:
    """A step of c' = A c + B f that is the same at all times: c = A_d c + B_d f (HiPPO, appendix B.3).

    Args:
        A: (N, N).
        B: (N,).
        step_size: dt.
        discretization: forward, backward, bilinear, zoh, another name they go by, or alpha of the general bilinear transform.

    Returns:
        A_d (N, N) and B_d (N,), float64.

    Raises:
        UserError: an unknown discretization.
    """
    method = canonical_discretization(discretization)
    A, B = A.double(), B.double()
    alpha = alpha_of(method)
    if alpha is None:
        # exp of [[A, B], [0, 0]] dt holds both; it needs no inverse of A.
        from scipy.linalg import expm

        joint = torch.zeros(len(B) + 1, len(B) + 1, dtype=A.dtype)
        joint[:-1, :-1], joint[:-1, -1] = A, B
        held = torch.from_numpy(expm((joint * step_size).numpy()))
        return held[:-1, :-1].clone(), held[:-1, -1].clone()
    identity = torch.eye(len(B), dtype=A.dtype)
    implicit = identity - alpha * step_size * A
    explicit = identity + (1 - alpha) * step_size * A
    return torch.linalg.solve(implicit, explicit), torch.linalg.solve(implicit, step_size * B)
