"""Transition matrices A and B of the memories' differential equations c' = A c + B f."""

from collections.abc import Callable

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from seqmem.arguments import check, plain
from seqmem.errors import UserError, suggestion


def transition(measure: str, order: int, **measure_args: float) -> tuple[Tensor, Tensor]:
    """Transition A, B of c' = A c + B f, the ``order`` coefficients of the input under ``measure``.

    Args:
        measure: ``"legs"`` (scaled Legendre: the whole past with equal weights; HiPPO, Theorem 2, without its factor 1/t),
            ``"legt"`` (translated Legendre: a sliding window of length 1; HiPPO, Theorem 1), ``"lmu"`` (the same window in
            the normalisation of the Legendre Memory Unit), or, with an exponentially weighted past, ``"lagt"`` (translated
            Laguerre as in HiPPO's experiments), ``"tlagt"`` (with a tilt; by default the LagT of HiPPO, Theorem 1) or
            ``"glagt"`` (generalised Laguerre; HiPPO, appendix D).
        order: N > 0.
        measure_args: arguments of the measure: ``beta`` (lagt: 1, tlagt: 1, glagt: 0.01) and, for glagt, ``alpha`` (0).

    Returns:
        A (N, N) and B (N,), float64.

    Raises:
        UserError: an unknown measure or argument, or an order that is not a positive whole number.

    >>> transition("legs", 2)[0]
    tensor([[-1.0000,  0.0000],
            [-1.7321, -2.0000]], dtype=torch.float64)
    """
    name, measure_args = _checked(measure, measure_args)
    return MEASURES[name](_indices(order), **measure_args)


def generators(measure: str, order: int, **measure_args: float) -> Tensor:
    """Generators of the quasiseparable transition of a measure, from which a step costs O(N).

    A_nk = -p_n q_k (n > k), -d_n (n = k), -g_n h_k (n < k) for every measure. ``csrc/quasiseparable.h`` has the step.

    Args:
        measure: as in :func:`transition`, with the same errors.
        order: N > 0.
        measure_args: arguments of the measure.

    Returns:
        p, q, d, g, h and B, (6, N) float64.
    """
    name, measure_args = _checked(measure, measure_args)
    n = _indices(order)
    A, B = MEASURES[name](n[:1], **measure_args)  # the first entries contain the arguments of lagt and tlagt
    one, zero = torch.ones_like(n), torch.zeros_like(n)
    scale, sign = torch.sqrt(2 * n + 1), alternating(n)
    match name:
        case "legs":
            rows = (scale, scale, n + 1, zero, zero, scale)
        case "legt":
            rows = (scale, scale, scale**2, scale * sign, scale * sign, scale)
        case "lmu":
            rows = (scale**2 * sign, sign, scale**2, scale**2, one, scale**2 * sign)
        case "glagt":
            weight = glagt_weight(n, measure_args.get("alpha", 0.0))
            rows = (1 / weight, weight, -A[0] * one, zero, zero, MEASURES[name](n, **measure_args)[1])
        case _:
            rows = (one, one, -A[0] * one, zero, zero, B * one)
    return torch.stack(rows)


def checked_measure(measure: str, measure_args: dict[str, float]) -> str:
    """Check a measure and its arguments, and return its name.

    Raises:
        UserError: an unknown measure or argument.
    """
    if not isinstance(measure, str) or measure not in MEASURES:
        raise UserError(f"measure: got '{measure}', expected a known measure{suggestion(measure, MEASURES)}")
    if not torch.compiler.is_compiling():
        check(MEASURES[measure], measure_args, "measure_args", skip=("n",))
    return measure


def checked_order(order: PositiveInt) -> int:
    """Return an order N as a Python number; symbols of torch.compile stay as they are.

    Raises:
        UserError: it is not a positive whole number.
    """
    if torch.compiler.is_compiling() or isinstance(order, torch.SymInt):
        return order
    found: int = check(checked_order, {"order": order})["order"]
    return found


def legs(n: Tensor) -> tuple[Tensor, Tensor]:
    """LegS: A_nk = -sqrt((2n+1)(2k+1)) if n > k, -(n+1) if n = k, 0 if n < k; B_n = sqrt(2n+1) (HiPPO, equation 3)."""
    scale = torch.sqrt(2 * n + 1)
    return torch.tril(-torch.outer(scale, scale), -1) - torch.diag(n + 1), scale


def legt(n: Tensor) -> tuple[Tensor, Tensor]:
    """LegT: A_nk = -sqrt((2n+1)(2k+1)) times 1 if n >= k, (-1)^(n-k) if n < k; B_n = sqrt(2n+1) (HiPPO, equation 1)."""
    scale = torch.sqrt(2 * n + 1)
    sign = torch.where(n[:, None] >= n, 1, alternating(n[:, None] - n))
    return -torch.outer(scale, scale) * sign, scale


def lmu(n: Tensor) -> tuple[Tensor, Tensor]:
    """LMU: A_nk = (2n+1) times -1 if n < k, (-1)^(n-k+1) if n >= k; B_n = (2n+1) (-1)^n (LMU, equation 2)."""
    scale = 2 * n + 1
    sign = torch.where(n[:, None] < n, 1, alternating(n[:, None] - n))
    return -scale[:, None] * sign, scale * alternating(n)


def lagt(n: Tensor, beta: PositiveFloat = 1.0) -> tuple[Tensor, Tensor]:
    """LagT: A_nk = -1 if n > k, -1/2 if n = k, 0 if n < k; B_n = beta."""
    return torch.eye(len(n), dtype=n.dtype) / 2 - _lower(n), beta * torch.ones_like(n)


def tlagt(n: Tensor, beta: PositiveFloat = 1.0) -> tuple[Tensor, Tensor]:
    """Tilted LagT: A_nk = -1 if n > k, -(1 + beta)/2 if n = k, 0 if n < k; B_n = beta (HiPPO, equation 2 at beta = 1)."""
    return (1 - beta) / 2 * torch.eye(len(n), dtype=n.dtype) - _lower(n), beta * torch.ones_like(n)


def glagt(n: Tensor, alpha: float = 0.0, beta: PositiveFloat = 0.01) -> tuple[Tensor, Tensor]:
    """Generalised LagT: A_nk = -W_k / W_n if n > k, -(1 + beta)/2 if n = k, 0 if n < k; B_n = binom(n + alpha, n) c / W_n.

    W_n = sqrt(Gamma(n + alpha + 1) / Gamma(n + 1)) and c = sqrt(beta^(1 - alpha) / Gamma(1 - alpha)) (HiPPO, appendix D.2).
    """
    weight = glagt_weight(n, alpha)
    one = torch.ones((), dtype=n.dtype)
    binomial = torch.exp(torch.lgamma(n + alpha + 1) - torch.lgamma(n + 1) - torch.lgamma(one + alpha))
    scale = beta ** ((1 - alpha) / 2) * torch.exp(-torch.lgamma(one - alpha) / 2)
    lower = torch.tril(weight / weight[:, None], -1)
    return -(1 + beta) / 2 * torch.eye(len(n), dtype=n.dtype) - lower, binomial * scale / weight


def glagt_weight(n: Tensor, alpha: float) -> Tensor:
    """W_n = sqrt(Gamma(n + alpha + 1) / Gamma(n + 1)) of generalised LagT.

    Raises:
        UserError: alpha is not between -1 and 1.
    """
    if not -1 < alpha < 1:
        raise UserError(f"measure_args.alpha: got {alpha}, expected above -1 and below 1")
    return torch.exp((torch.lgamma(n + alpha + 1) - torch.lgamma(n + 1)) / 2)


def alternating(n: Tensor) -> Tensor:
    """(-1)^n."""
    return 1 - 2 * torch.remainder(n, 2)


def _lower(n: Tensor) -> Tensor:
    return torch.tril(torch.ones(len(n), len(n), dtype=n.dtype))


def _checked(measure: str, measure_args: dict[str, float]) -> tuple[str, dict[str, float]]:
    """Return a checked measure, and its arguments as Python numbers."""
    name = checked_measure(measure, measure_args)
    return name, measure_args if torch.compiler.is_compiling() else plain(measure_args)


def _indices(order: int) -> Tensor:
    return torch.arange(checked_order(order), dtype=torch.float64)


MEASURES: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "legs": legs,
    "legt": legt,
    "lmu": lmu,
    "lagt": lagt,
    "tlagt": tlagt,
    "glagt": glagt,
}
