"""The memories' differential equations c' = A c + B f."""

from collections.abc import Callable

import torch
from torch import Tensor

from seqmem.errors import UserError, suggestion


def transition(measure: str, order: int) -> tuple[Tensor, Tensor]:
    """The transition of a memory that keeps ``order`` coefficients of its input under ``measure``: c' = A c + B f.

    Args:
        measure: ``"legs"`` (scaled Legendre: all of the past, weighted evenly; HiPPO, Theorem 2, to be divided by the time t),
            ``"legt"`` (translated Legendre: a sliding window of length 1; HiPPO, Theorem 1) or ``"lmu"`` (the same window in
            the normalisation of the Legendre Memory Unit).
        order: N > 0.

    Returns:
        A (N, N) and B (N,), float64.

    Raises:
        UserError: an unknown measure, or an order that is not positive.

    >>> transition("legs", 2)[0]
    tensor([[-1.0000,  0.0000],
            [-1.7321, -2.0000]], dtype=torch.float64)
    """
    if measure not in MEASURES:
        raise UserError(f"there is no measure '{measure}'{suggestion(measure, MEASURES)}")
    if order < 1:
        raise UserError(f"the memory order must be positive, got {order}")
    return MEASURES[measure](torch.arange(order, dtype=torch.float64))


def legs(n: Tensor) -> tuple[Tensor, Tensor]:
    """A_nk = -sqrt((2n+1)(2k+1)) if n > k, -(n+1) if n = k, 0 if n < k; B_n = sqrt(2n+1) (HiPPO, equation 3)."""
    scale = torch.sqrt(2 * n + 1)
    return torch.tril(-torch.outer(scale, scale), -1) - torch.diag(n + 1), scale


def legt(n: Tensor) -> tuple[Tensor, Tensor]:
    """A_nk = -sqrt((2n+1)(2k+1)) times 1 if n >= k, (-1)^(n-k) if n < k; B_n = sqrt(2n+1) (HiPPO, equation 1)."""
    scale = torch.sqrt(2 * n + 1)
    sign = torch.where(n[:, None] >= n, 1, alternating(n[:, None] - n))
    return -torch.outer(scale, scale) * sign, scale


def lmu(n: Tensor) -> tuple[Tensor, Tensor]:
    """A_nk = (2n+1) times -1 if n < k, (-1)^(n-k+1) if n >= k; B_n = (2n+1) (-1)^n (LMU, equation 2)."""
    scale = 2 * n + 1
    sign = torch.where(n[:, None] < n, 1, alternating(n[:, None] - n))
    return -scale[:, None] * sign, scale * alternating(n)


def alternating(n: Tensor) -> Tensor:
    """(-1)^n."""
    return 1 - 2 * torch.remainder(n, 2)


MEASURES: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {"legs": legs, "legt": legt, "lmu": lmu}
