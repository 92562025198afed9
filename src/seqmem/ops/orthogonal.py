"""Maps from a skew-symmetric to an orthogonal matrix, which do not wait for a GPU.

torch.matrix_exp and torch.linalg.solve read values of CUDA tensors on the host.
"""

import torch
from torch import Tensor

from seqmem.ops.exponential import SCALED_NORM, scaled_exponential

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
    k = torch.log2(norm / SCALED_NORM).ceil().clamp(min=0)
    result = scaled_exponential(matrix * torch.exp2(-k), _SQUARINGS, k)
    return result.masked_fill(k > _SQUARINGS, torch.nan)
