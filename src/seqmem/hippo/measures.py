"""Measures: the functions of age that the coefficients of a memory multiply.

A measure weights each moment of the past (HiPPO, section 2) by its age s: 0 is now, and one unit is the whole past (LegS), the
window theta (LegT, the Legendre Memory Unit) or the time scale theta (Laguerre). The coefficients c of a memory represent
f(s) = sum_n c_n b_n(s), with

    legs, legt            b_n(s) = sqrt(2n+1) P_n(1 - 2s), orthonormal on [0, 1]
    lmu                   b_n(s) = P_n(2s - 1)
    lagt, tlagt, glagt    b_n(s) = s^alpha exp(-(1 - tilt) s / 2) L_n^(alpha)(s) / (W_n kappa), orthonormal under the measure
                          s^(-alpha) exp(-tilt s) except for kappa, the scale of B; tilt is 0 (lagt) or beta, W_n the norm of
                          L_n^(alpha) under s^alpha exp(-s)
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor

from seqmem.arguments import check
from seqmem.errors import UserError
from seqmem.ops import Discretization, canonical_discretization, transition
from seqmem.ops.transition import checked_measure, glagt_weight

LAGUERRE = ("lagt", "tlagt", "glagt")


@dataclass(frozen=True)
class Memory:
    """Settings of a memory: the measure, the order N, and the discretization.

    Positions of the samples in time: each sample represents a step and is in its middle, so the newest has an age of half a
    step. LegS counts the first sample as half a step, so its past has T - 1/2 steps after T samples: for step t, from t - 1/2
    to t + 1/2, a bilinear step of size 1/t is the midpoint rule. Zero-order hold counts the first sample as a whole step, so
    its past has T steps.

    Args:
        order: N > 0.
        measure: legs, legt, lmu, lagt, tlagt or glagt, see :func:`seqmem.ops.transition`.
        theta: window (legt, lmu) or time scale (lagt, tlagt, glagt) in samples; None for legs.
        discretization: see :func:`seqmem.ops.canonical_discretization`; default bilinear for legs and zoh for the others.
        measure_args: arguments of the measure.

    Raises:
        UserError: a value of the wrong type; an unknown measure, argument or discretization; an order or theta that is not
            positive; a missing theta, or a theta for legs.
    """

    order: PositiveInt
    measure: str = "legs"
    theta: float | None = None
    discretization: str | float | None = None
    measure_args: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in check(Memory, vars(self)).items():
            object.__setattr__(self, name, value)
        checked_measure(self.measure, self.measure_args)
        if self.is_scaled and self.theta is not None:
            raise UserError(
                f"theta: got {self.theta}, expected none for legs, which remembers all of the past; legt has a window"
            )
        if not self.is_scaled and (self.theta is None or self.theta <= 0):
            meaning = "time scale" if self.measure in LAGUERRE else "window"
            raise UserError(f"theta: got {self.theta}, expected a number above 0, the {meaning} of {self.measure} in samples")
        if self.discretization is not None:
            canonical_discretization(self.discretization)

    @property
    def is_scaled(self) -> bool:
        """Whether the measure stretches with time (LegS)."""
        return self.measure == "legs"

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of ``project``, ``reconstruct`` and ``least_squares``, except the order."""
        own = {"measure": self.measure, "theta": self.theta, "discretization": self.discretization}
        return own | self.measure_args

    @property
    def method(self) -> Discretization:
        """The discretization by its canonical name."""
        default = "bilinear" if self.is_scaled else "zoh"
        return canonical_discretization(default if self.discretization is None else self.discretization)

    def scale(self, length: int) -> float:
        """Return the number of samples in a unit of age after ``length`` samples."""
        if self.theta is not None:
            return self.theta
        return length if self.method == "zoh" else length - 0.5

    def ages(self, length: int, at: Tensor) -> Tensor:
        """Return the ages of the moments ``at`` (in samples, 0 is the first one) after ``length`` samples."""
        return (length - 0.5 - at) / self.scale(length)

    def oldest(self, length: int) -> float:
        """Return the oldest moment that is remembered after ``length`` samples, in samples from the first."""
        if self.measure in ("legt", "lmu"):
            return max(0.0, length - 0.5 - self.scale(length))
        return 0.0

    def samples(self, length: int) -> Tensor:
        """Return the samples that are remembered after ``length`` samples, (P,) float64, counted from 0."""
        return torch.arange(math.ceil(self.oldest(length)), length, dtype=torch.float64)

    def functions(self, ages: Tensor) -> Iterator[Tensor]:
        """Yield b_0, b_1, ... b_(N-1) at ages (P,), each (P,)."""
        if self.measure in LAGUERRE:
            A, B = transition(self.measure, 1, **self.measure_args)
            alpha = self.measure_args.get("alpha", 0.0)
            norms = glagt_weight(torch.arange(self.order, dtype=torch.float64), alpha)
            kappa = (B[0] * norms[0]).item()
            decay = 1 + A[0, 0].item()  # A_00 = -(1 + tilt) / 2
            values = laguerre(self.order, ages, alpha, alpha * ages.log() - decay * ages if alpha else -decay * ages)
            for value, norm in zip(values, norms.tolist(), strict=True):
                yield value / (norm * kappa)
        elif self.measure == "lmu":
            yield from legendre(self.order, 2 * ages - 1)
        else:
            for n, value in enumerate(legendre(self.order, 1 - 2 * ages)):
                yield math.sqrt(2 * n + 1) * value

    def weights(self, ages: Tensor) -> Tensor:
        """Return the measure at ages (P,), up to a factor: the weight of an error, (P,)."""
        if self.measure not in LAGUERRE:
            return torch.ones_like(ages)
        tilt = -1 - 2 * transition(self.measure, 1, **self.measure_args)[0].item()
        return ages ** -self.measure_args.get("alpha", 0.0) * torch.exp(-tilt * ages)


def legendre(order: int, x: Tensor) -> Iterator[Tensor]:
    """Yield the Legendre polynomials P_0(x) ... P_(order-1)(x)."""
    before, value = torch.zeros_like(x), torch.ones_like(x)
    for n in range(order):
        yield value
        before, value = value, ((2 * n + 1) * x * value - n * before) / (n + 1)


def laguerre(order: int, x: Tensor, alpha: float, log_factor: Tensor) -> Iterator[Tensor]:
    """Yield the Laguerre polynomials L_0^(alpha)(x) ... L_(order-1)^(alpha)(x), each times exp(log_factor)."""
    before, value = torch.zeros_like(x), torch.ones_like(x)
    for n in range(order):
        yield value * torch.exp(log_factor)
        before, value = value, ((2 * n + 1 + alpha - x) * value - (n + alpha) * before) / (n + 1)
        # The factor underflows before the polynomial has grown as much: keep them separate, and the polynomial small.
        shift = 100 * (value.abs() > 1e100).to(x.dtype)
        shrink = 10.0**-shift
        before, value, log_factor = before * shrink, value * shrink, log_factor + math.log(10) * shift
