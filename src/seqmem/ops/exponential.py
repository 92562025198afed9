"""The exponential of matrices by products alone: torch.matrix_exp reads values of CUDA tensors on the host."""

from math import ceil, factorial, log2

import torch
from torch import Tensor

SCALED_NORM = 0.5
"""Largest norm of a matrix in the series: 0.5^16 / 16! = 7e-19, so that 16 terms are exact in float64."""

_TERMS = 16


def halvings(norm: float) -> int:
    """Return how often a matrix of a norm is halved to one of at most :data:`SCALED_NORM`."""
    return max(0, ceil(log2(norm / SCALED_NORM))) if norm > 0 else 0


def scaled_exponential(scaled: Tensor, squarings: int, needed: Tensor | None = None) -> Tensor:
    """Compute exp(2^k X) by the exponential series of X and k squarings.

    Args:
        scaled: X, (..., N, N) floating point, of a norm of at most :data:`SCALED_NORM`.
        squarings: k of all matrices; with ``needed`` its upper limit.
        needed: k of each matrix, (...).

    Returns:
        (..., N, N).
    """
    result = _series(scaled)
    for k in range(squarings):
        squared = result @ result
        result = squared if needed is None else torch.where((needed > k)[..., None, None], squared, result)
    return result


def _series(matrix: Tensor) -> Tensor:
    """Compute the first 16 terms of the exponential series by six products (Paterson and Stockmeyer, 1973)."""
    powers = [torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device), matrix]
    while len(powers) < 5:
        powers.append(powers[-1] @ matrix)
    *low, fourth = powers
    total = torch.zeros_like(matrix)
    for first in reversed(range(0, _TERMS, 4)):
        if first < _TERMS - 4:
            total = total @ fourth
        for k, power in enumerate(low):
            total = total + power / factorial(first + k)
    return total
