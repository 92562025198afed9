"""A causal convolution of each channel that is added to its inputs."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from seqmem.ops.precision import at_least_float32
from seqmem.sequence import SequenceLayer


class ConvolutionState(NamedTuple):
    """State: ``inputs`` (B, k-1, C), the last inputs, the oldest first, at least in float32."""

    inputs: Tensor


class ResidualConvolution(SequenceLayer[ConvolutionState]):
    """Outputs y_t = x_t + sum_j w_j x_{t-k+1+j} + b, each channel with weights of its own.

    Parameters: ``weight`` (C, k), whose last tap multiplies the current input, and ``bias`` (C,), with the initial values of
    torch.nn.Conv1d.

    Args:
        input_size: C.
        kernel_size: k, the number of taps.
    """

    operator = "causal_convolution"

    def __init__(self, input_size: int, kernel_size: int):
        super().__init__()
        self.input_size, self.output_size, self.kernel_size = input_size, input_size, kernel_size
        self.weight, self.bias = nn.Parameter(torch.empty(input_size, kernel_size)), nn.Parameter(torch.empty(input_size))
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -(kernel_size**-0.5), kernel_size**-0.5)

    def initial_state(self, batch_size: int) -> ConvolutionState:
        """Return zeros."""
        return ConvolutionState(at_least_float32(self.weight).new_zeros(batch_size, self.kernel_size - 1, self.input_size))

    def fused_forward(
        self, run: Any, inputs: Tensor, state: ConvolutionState, lengths: Tensor | None, fresh: bool
    ) -> tuple[Tensor, ConvolutionState]:
        """Compute a whole sequence."""
        convolved, last = run(inputs, self.weight, self.bias, state.inputs, lengths)
        return inputs + convolved, ConvolutionState(last)
