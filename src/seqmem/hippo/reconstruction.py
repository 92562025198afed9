"""From coefficients back to the signal, and the best coefficients that there are."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqmem.errors import UserError
from seqmem.hippo.measures import Memory
from seqmem.ops.reference import check_signal, describe


def reconstruct(
    coefficients: Tensor,
    length: int,
    measure: str = "legs",
    theta: float | None = None,
    at: Tensor | Sequence[float] | None = None,
    discretization: str | float | None = None,
    **measure_args: float,
) -> Tensor:
    """The signal that coefficients stand for, at any moments of the past.

    Args:
        coefficients: (N,), or (..., N) for many signals.
        length: how many samples the projection has seen. Any: nothing depends on a maximum.
        measure: as in :func:`seqmem.hippo.project`, like theta, discretization and measure_args.
        theta: window (legt, lmu) or time scale (lagt, tlagt, glagt) in samples.
        at: (P,) the moments, counted in samples: 0 is the first sample, ``length - 1`` the newest, and what lies between two
            samples may be asked for. Default: every sample that is remembered, all of them or (legt, lmu) the last theta.
        discretization: with which the coefficients were made.
        measure_args: of the measure.

    Returns:
        (P,), or (..., P); floating point of the coefficients' type.

    Raises:
        UserError: coefficients without a last dimension, a length that is not positive, or a moment that is not remembered.

    >>> signal = torch.linspace(0, 1, 101, dtype=torch.float64) ** 2
    >>> coefficients = project(signal, order=8)
    >>> reconstruct(coefficients, 101, at=[0, 50, 75.5, 100]).round(decimals=3)
    tensor([0.0000, 0.2500, 0.5700, 1.0000], dtype=torch.float64)
    """
    coefficients = torch.as_tensor(coefficients)
    if coefficients.dim() == 0 or not coefficients.is_floating_point():
        raise UserError(f"the coefficients must be (..., N) floating point, got {describe(coefficients)}")
    if length < 1:
        raise UserError(f"the length must be the number of samples projected, at least 1, got {length}")
    memory = Memory(coefficients.shape[-1], measure, theta, discretization, measure_args)
    moments = memory.samples(length) if at is None else torch.as_tensor(at, dtype=torch.float64)
    _check_moments(memory, length, moments)
    ages = memory.ages(length, moments.to(coefficients.device))
    # One function of age at a time: P values and no (P, N) matrix, which at a million samples would fill the memory.
    values = coefficients.new_zeros(*coefficients.shape[:-1], len(moments), dtype=torch.float64)
    for n, function in enumerate(memory.functions(ages)):
        values = torch.addcmul(values, coefficients[..., n, None].double(), function)
    return values.to(coefficients.dtype)


def least_squares(
    signal: Tensor | np.ndarray | Sequence[float],
    order: int,
    measure: str = "legs",
    theta: float | None = None,
    discretization: str | float | None = None,
    **measure_args: float,
) -> Tensor:
    """The coefficients with which :func:`reconstruct` comes closest to the samples: what a projection can at best reach.

    It minimises the sum of squared errors over the remembered samples, each weighted by the measure. It needs the whole
    signal, a matrix of T x N numbers and O(T N^2) operations. With fewer samples than coefficients it takes the smallest.

    Args:
        signal: (T,) or (B, T) floating point, T > 0.
        order: N.
        measure: as in :func:`seqmem.hippo.project`, like theta, discretization and measure_args.
        theta: window (legt, lmu) or time scale (lagt, tlagt, glagt) in samples.
        discretization: says where the samples lie in time.
        measure_args: of the measure.

    Returns:
        (N,) or (B, N), of the signal's type.

    Raises:
        UserError: a signal of another shape or type, or settings as in :func:`seqmem.hippo.project`.

    >>> signal = torch.linspace(0, 1, 101, dtype=torch.float64) ** 2
    >>> (reconstruct(least_squares(signal, order=3), 101) - signal).abs().max() < 1e-13
    tensor(True)
    """
    memory = Memory(order, measure, theta, discretization, measure_args)
    signal = as_signal(signal, order)
    samples = memory.samples(signal.shape[-1]).to(signal.device)
    ages = memory.ages(signal.shape[-1], samples)
    weight = memory.weights(ages).sqrt()[:, None]
    basis = torch.stack(list(memory.functions(ages)), dim=1)
    wanted = signal[..., -len(samples) :].double().reshape(-1, len(samples)).T
    driver = "gelsd" if signal.is_cpu else "gels"  # of these, gelsd alone takes matrices without full rank
    solution = torch.linalg.lstsq(weight * basis, weight * wanted, driver=driver).solution
    return solution.T.reshape(*signal.shape[:-1], order).to(signal.dtype)


def as_signal(signal: Any, order: int = 1) -> Tensor:
    """A tensor (T,) or (B, T) of floating-point samples, made of what was given.

    Raises:
        UserError: saying what was wanted.
    """
    tensor = torch.as_tensor(signal)
    check_signal(tensor, order)
    return tensor


def _check_moments(memory: Memory, length: int, moments: Tensor) -> None:
    if moments.dim() != 1:
        raise UserError(f"the moments 'at' must be (P,), got {describe(moments)}")
    first, last = memory.oldest(length), length - 0.5
    outside = moments[~((moments >= first) & (moments <= last))]
    if len(outside):
        raise UserError(
            f"after {length} samples {memory.measure} remembers the moments {first:g} to {last:g}, got {outside[0].item():g}"
        )
