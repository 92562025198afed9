"""Maps from a skew-symmetric to an orthogonal matrix, which do not wait for a GPU.

torch.matrix_exp and torch.linalg.solve read values of CUDA tensors on the host.
"""

from math import factorial

import torch
from torch import Tensor

_TERMS = 16
_SCALED_NORM = 0.5  # 0.5^16 / 16! = 7e-19: the series is exact in float64
_SQUARINGS = 20


def exponential(skew: Tensor) -> Tensor:
    """Compute exp(A) of a skew-symmetric A (H, H)."""
    return scaled_and_squared(skew) if skew.is_cuda else torch.matrix_exp(skew)


def cayley(skew: Tensor) -> Tensor:
    """Compute (I + A/2) (I - A/2)^-1 of a skew-symmetric A (H, H); I - A/2 is never singular."""
    identity = torch.eye(len(skew), dtype=skew.dtype, device=skew.device)
    return torch.linalg.solve_ex(torch.add(identity, skew, alpha=-0.5), torch.add(identity, skew, alpha=0.5)).result


def scaled_and_squared(matrix: Tensor) -> Tensor:
    """Compute exp(A) as exp(A / 2^k)^(2^k), where k follows from the norm of A on its device.

    Args:
        matrix: A, (H, H) floating point; NaN results if its row sums exceed 2^19.
    """
    norm = matrix.detach().abs().sum(-1).amax()
    k = torch.log2(norm / _SCALED_NORM).ceil().clamp(min=0)
    result = _series(matrix * torch.exp2(-k))
    for squaring in range(_SQUARINGS):
        result = torch.where(squaring < k, result @ result, result)
    return result.masked_fill(k > _SQUARINGS, torch.nan)


def _series(matrix: Tensor) -> Tensor:
    """Compute the first 16 terms of the exponential series by six products (Paterson and Stockmeyer, 1973)."""
    powers = [torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device), matrix]
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
