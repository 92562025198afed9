"""How a differential equation becomes a step, and what else the literature calls it."""

from typing import Literal

from seqmem.errors import UserError, suggestion

Discretization = Literal["forward", "backward", "bilinear", "zoh"]

DiscretizationName = Literal[
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

DISCRETIZATIONS: tuple[Discretization, ...] = ("forward", "backward", "bilinear", "zoh")

ALIASES: dict[str, Discretization] = {name: name for name in DISCRETIZATIONS} | {
    "euler": "forward",
    "forward_euler": "forward",
    "forward_diff": "forward",
    "backward_euler": "backward",
    "backward_diff": "backward",
    "tustin": "bilinear",
    "trapezoid": "bilinear",
    "trapezoidal": "bilinear",
}


def canonical_discretization(name: str) -> Discretization:
    """The one of ``DISCRETIZATIONS`` that ``name`` means.

    Raises:
        UserError: a name that no discretization goes by.
    """
    if name not in ALIASES:
        raise UserError(f"there is no discretization '{name}'{suggestion(name, ALIASES)}")
    return ALIASES[name]
