"""Exponential moving averages with learned complex decays: the simplest layer with a diagonal scan."""

import math
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from seqmem.arguments import checked
from seqmem.errors import UserError
from seqmem.ops import pairs
from seqmem.ops.precision import at_least_float32, full_precision, mixed_linear
from seqmem.sequence import SequenceLayer


class EMAState(NamedTuple):
    """State: ``averages`` (B, N, 2), real and imaginary parts."""

    averages: Tensor


class EMA(SequenceLayer[EMAState]):
    """Moving averages with learned complex decays.

    N averages h_t = a h_{t-1} + sqrt(1 - |a|^2) W x_t have the outputs y_t = Re(C h_t) + D x_t. The decays a = exp(-exp(nu) + i
    theta) have a modulus below 1 by construction. The factor sqrt(1 - |a|^2) keeps the variance of the averages near that of W
    x, as in the LRU (Orvieto et al., 2023, section 3.4).

    Parameters: ``nu`` and ``theta`` (N,), without weight decay; ``weight_in`` W (N, C); ``weight_out`` C (H, N, 2), real and
    imaginary parts; ``weight_skip`` D (H, C).

    Args:
        input_size: C.
        hidden_size: H.
        num_averages: N; None for ``hidden_size``.
        shortest: initial time constant 1 / (1 - |a|) of the fastest average, in steps.
        longest: initial time constant of the slowest average; the others are spaced evenly on a logarithmic scale.

    Raises:
        UserError: an argument of the wrong type or range, or ``longest`` below ``shortest``.
    """

    name = "ema"
    operator = "diagonal_scan"
    no_decay = ("nu", "theta")

    @checked
    def __init__(
        self,
        input_size: PositiveInt,
        hidden_size: PositiveInt = 256,
        num_averages: PositiveInt | None = None,
        shortest: Annotated[int, Field(ge=2)] = 2,
        longest: Annotated[int, Field(ge=2)] = 1000,
    ):
        super().__init__()
        if longest < shortest:
            raise UserError(f"longest: got {longest}, expected at least shortest={shortest}")
        self.input_size, self.output_size = input_size, hidden_size
        size = num_averages or hidden_size
        constants = torch.logspace(math.log10(shortest), math.log10(longest), size)
        self.nu = nn.Parameter(torch.log(-torch.log1p(-1 / constants)))
        self.theta = nn.Parameter(torch.rand(size) * math.pi / 10)
        self.weight_in = nn.Parameter(torch.empty(size, input_size))
        self.weight_out = nn.Parameter(torch.randn(hidden_size, size, 2) * (2 * size) ** -0.5)
        self.weight_skip = nn.Parameter(torch.empty(hidden_size, input_size))
        for weight in (self.weight_in, self.weight_skip):
            nn.init.xavier_normal_(weight)

    def initial_state(self, batch_size: int) -> EMAState:
        """Return zeros."""
        return EMAState(at_least_float32(self.nu).new_zeros(batch_size, len(self.nu), 2))

    def fused_forward(
        self, run: Any, inputs: Tensor, state: EMAState, lengths: Tensor | None, fresh: bool
    ) -> tuple[Tensor, EMAState]:
        """Compute a whole sequence by a diagonal scan, in the precision of the parameters but at least in float32."""
        parameters = (self.nu, self.theta, self.weight_in, self.weight_out, self.weight_skip)
        nu, theta, weight_in, weight_out, weight_skip = map(at_least_float32, parameters)
        inputs = inputs.to(nu.dtype)
        rate = nu.exp()
        # 1 - |a|^2 without cancellation, which would leave nothing of a time constant of 1e8 in float32.
        driven = mixed_linear(inputs, weight_in) * (-torch.expm1(-2 * rate)).sqrt()
        decay = torch.exp(-rate)[:, None] * torch.stack([theta.cos(), theta.sin()], -1)
        driven = torch.stack([driven, torch.zeros_like(driven)], -1)
        with full_precision(inputs.device):
            averages, last = run(decay, driven, None if fresh else state.averages, lengths)
        outputs = pairs.real_part(averages, weight_out)
        return (outputs + mixed_linear(inputs, weight_skip)).to(self.weight_out.dtype), EMAState(last)
