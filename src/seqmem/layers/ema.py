"""Exponential moving averages with learned complex decays: the simplest layer on the diagonal scan."""

import math
from typing import Any, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import linear

from seqmem.arguments import checked
from seqmem.ops.precision import full_precision
from seqmem.sequence import SequenceLayer


class EMAState(NamedTuple):
    """averages: (B, N) complex."""

    averages: Tensor


class EMA(SequenceLayer[EMAState]):
    """N averages h_t = a h_{t-1} + sqrt(1 - |a|^2) W x_t, and y_t = Re(C h_t) + D x_t.

    The decays a = exp(-exp(nu) + i theta) have a modulus below 1 by their form. The factor keeps the averages' variance near
    that of W x, as in the LRU of Orvieto et al. (2023), section 3.4.

    Parameters: ``nu`` and ``theta`` (N,), ``weight_in`` W (N, C), ``weight_out`` C (H, N, 2), real and imaginary parts,
    ``weight_skip`` D (H, C).

    Args:
        input_size: C.
        hidden_size: H.
        num_averages: N; None for ``hidden_size``.
        shortest: time constant 1 / (1 - |a|) of the fastest average at the start, in steps.
        longest: the same of the slowest one; all others are spread evenly on a logarithmic scale.

    Raises:
        UserError: an argument of the wrong type or range.
    """

    name = "ema"
    operator = "diagonal_scan"

    @checked
    def __init__(
        self,
        input_size: PositiveInt,
        hidden_size: PositiveInt = 256,
        num_averages: PositiveInt | None = None,
        shortest: PositiveInt = 2,
        longest: PositiveInt = 1000,
    ):
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size
        size = num_averages or hidden_size
        constants = torch.logspace(math.log10(shortest), math.log10(max(longest, shortest)), size)
        self.nu = nn.Parameter(torch.log(-torch.log1p(-1 / constants.clamp(min=1.5))))
        self.theta = nn.Parameter(torch.rand(size) * math.pi / 10)
        self.weight_in = nn.Parameter(torch.empty(size, input_size))
        self.weight_out = nn.Parameter(torch.randn(hidden_size, size, 2) * (2 * size) ** -0.5)
        self.weight_skip = nn.Parameter(torch.empty(hidden_size, input_size))
        for weight in (self.weight_in, self.weight_skip):
            nn.init.xavier_normal_(weight)

    def initial_state(self, batch_size: int) -> EMAState:
        """Return zeros."""
        return EMAState(torch.complex(self.nu, self.theta).new_zeros(batch_size, len(self.nu)))

    def fused_forward(
        self, run: Any, inputs: Tensor, state: EMAState, lengths: Tensor | None, fresh: bool
    ) -> tuple[Tensor, EMAState]:
        """Compute a whole sequence by a diagonal scan; under autocast in the parameters' precision."""
        with full_precision(inputs.device):
            inputs = inputs.to(self.nu.dtype)
            decay = torch.exp(torch.complex(-self.nu.exp(), self.theta))
            driven = linear(inputs, self.weight_in) * (1 - decay.abs().square()).sqrt()
            averages, last = run(decay, torch.complex(driven, torch.zeros_like(driven)), state.averages, lengths)
            outputs = linear(averages.real, self.weight_out[..., 0]) - linear(averages.imag, self.weight_out[..., 1])
            return outputs + linear(inputs, self.weight_skip), EMAState(last)
