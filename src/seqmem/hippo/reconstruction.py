"""Reconstruction of a signal from coefficients, and the least-squares projection to compare with."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pydantic import PositiveInt
from torch import Tensor

from seqmem.arguments import checked
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
    """Reconstruct a signal from its coefficients, at any moments of the past.

    Args:
        coefficients: (N,), or (..., N) for many signals.
        length: number of samples that were projected; there is no maximum.
        measure: as in :func:`seqmem.hippo.project`, like theta, discretization and measure_args.
        theta: window (legt, lmu) or time scale (lagt, tlagt, glagt) in samples.
        at: (P,) the moments in samples: 0 is the first sample, ``length - 1`` the newest, and fractions are between samples.
            Default: every sample that is remembered, all of them or (legt, lmu) the last theta.
        discretization: the one that the coefficients were computed with.
        measure_args: arguments of the measure.

    Returns:
        (P,), or (..., P); floating point of the coefficients' type.

    Raises:
        UserError: coefficients without a last dimension, a length that is not a positive whole number, or a moment that is not
            remembered.

    >>> from seqmem.hippo import project, reconstruct
    >>> signal = torch.linspace(0, 1, 101, dtype=torch.float64) ** 2
    >>> coefficients = project(signal, order=8)
    >>> reconstruct(coefficients, 101, at=[0, 50, 75.5, 100]).round(decimals=3)
    tensor([0.0000, 0.2500, 0.5700, 1.0000], dtype=torch.float64)
    """
    coefficients = as_tensor(coefficients)
    if coefficients.dim() == 0 or not coefficients.is_floating_point():
        raise UserError(f"coefficients: got {describe(coefficients)}, expected (..., N) floating point")
    length = checked_samples(length)
    memory = Memory(coefficients.shape[-1], measure, theta, discretization, measure_args)
    moments = memory.samples(length) if at is None else as_tensor(at, torch.float64)
    _check_moments(memory, length, moments)
    ages = memory.ages(length, moments.to(coefficients.device))
    # One function of age at a time: P values instead of a (P, N) matrix, which at 10^6 samples would fill the memory.
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
    """Compute the coefficients whose reconstruction is closest to the samples: the optimum of any projection.

    They minimise the sum of squared errors over the remembered samples, each weighted by the measure. This needs the whole
    signal, a matrix of T x N numbers and O(T N^2) operations. With fewer samples than coefficients, the solution of least norm
    is taken.

    Args:
        signal: (T,) or (B, T) floating point, T > 0.
        order: N.
        measure: as in :func:`seqmem.hippo.project`, like theta, discretization and measure_args.
        theta: window (legt, lmu) or time scale (lagt, tlagt, glagt) in samples.
        discretization: determines the positions of the samples in time.
        measure_args: arguments of the measure.

    Returns:
        (N,) or (B, N), of the signal's type.

    Raises:
        UserError: a signal of a different shape or type, wrong settings as in :func:`seqmem.hippo.project`, or a window that
            holds no sample.

    >>> from seqmem.hippo import least_squares, reconstruct
    >>> signal = torch.linspace(0, 1, 101, dtype=torch.float64) ** 2
    >>> (reconstruct(least_squares(signal, order=3), 101) - signal).abs().max() < 1e-13
    tensor(True)
    """
    memory = Memory(order, measure, theta, discretization, measure_args)
    signal = as_signal(signal)
    samples = memory.samples(signal.shape[-1]).to(signal.device)
    if len(samples) == 0:
        raise UserError(f"theta: got {theta}, expected at least 0.5: the newest sample has an age of half a step")
    ages = memory.ages(signal.shape[-1], samples)
    weight = memory.weights(ages).sqrt()[:, None]
    basis = torch.stack(list(memory.functions(ages)), dim=1)
    values = signal[..., -len(samples) :].double().reshape(-1, len(samples)).T
    driver = "gelsd" if signal.is_cpu else "gels"  # only gelsd solves problems without full rank
    solution = torch.linalg.lstsq(weight * basis, weight * values, driver=driver).solution
    return solution.T.reshape(*signal.shape[:-1], memory.order).to(signal.dtype)


@checked
def checked_samples(length: PositiveInt) -> int:
    """Return a number of samples as a Python number.

    Raises:
        UserError: it is not a positive whole number.
    """
    return length


def as_tensor(values: Any, dtype: torch.dtype | None = None) -> Tensor:
    """Convert numbers, or an array of any strides, to a tensor."""
    if isinstance(values, np.ndarray):
        values = np.ascontiguousarray(values).reshape(values.shape)
    return torch.as_tensor(values, dtype=dtype)


def as_signal(signal: Any) -> Tensor:
    """Convert samples to a tensor (T,) or (B, T) of floating point.

    Raises:
        UserError: a different shape or type.
    """
    tensor = as_tensor(signal)
    check_signal(tensor, 1)
    return tensor


def _check_moments(memory: Memory, length: int, moments: Tensor) -> None:
    if moments.dim() != 1:
        raise UserError(f"at: got {describe(moments)}, expected moments (P,)")
    first, last = memory.oldest(length), length - 0.5
    outside = moments[~((moments >= first) & (moments <= last))]
    if len(outside):
        raise UserError(
            f"at: got {outside[0].item():g}, expected {first:g} to {last:g}, "
            f"which {memory.measure} remembers after {length} samples"
        )
