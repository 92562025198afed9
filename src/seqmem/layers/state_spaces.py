"""What layers with a state space model share: the map of their inputs, and initial step sizes."""

import math

import torch
from torch import Tensor, nn

from seqmem.errors import UserError
from seqmem.ops.precision import at_least_float32, mixed_linear


def make_projection(input_size: int, hidden_size: int) -> nn.Parameter | None:
    """Return the weight (H, C) of a linear map of the inputs, Xavier normal; None if C is H."""
    if input_size == hidden_size:
        return None
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(hidden_size, input_size)))


def projected(inputs: Tensor, weight: nn.Parameter | None) -> Tensor:
    """Map inputs (B, T, C), at least in float32, to H channels; return them unchanged without a weight."""
    return inputs if weight is None else mixed_linear(inputs, at_least_float32(weight))


def initial_log_steps(size: int, dt_min: float, dt_max: float) -> Tensor:
    """Draw logarithms of ``size`` step sizes, uniform between those of ``dt_min`` and ``dt_max``.

    Raises:
        UserError: ``dt_max`` is below ``dt_min``.
    """
    if dt_max < dt_min:
        raise UserError(f"dt_min: got {dt_min}, expected at most dt_max={dt_max}")
    return math.log(dt_min) + (math.log(dt_max) - math.log(dt_min)) * torch.rand(size)
