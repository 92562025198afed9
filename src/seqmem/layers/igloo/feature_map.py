"""The feature map of an IGLOO layer: a convolution over time."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, leaky_relu, pad

SLOPE = 0.1
"""Negative slope of every leaky ReLU in the layer."""

FEW_TAPS = 4
"""Up to this many taps, one matrix product per tap takes less time and memory than torch's convolution."""


class FeatureMap(nn.Module):
    """Convolution, leaky ReLU and channel dropout, with the batch as the last dimension.

    Weights start Glorot-uniform, biases zero.

    Args:
        channels: C.
        filters: K.
        kernel: taps.
        dilation: steps between two taps.
        style: "causal" or "same".
        dropout: probability with which a channel is dropped for a whole sequence.
    """

    def __init__(self, channels: int, filters: int, kernel: int, dilation: int, style: str, dropout: float):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(filters, channels, kernel))
        self.bias = nn.Parameter(torch.zeros(filters))
        nn.init.xavier_uniform_(self.weight)
        self.dilation, self.dropout = dilation, dropout
        span = dilation * (kernel - 1)
        self.before = span if style == "causal" else span // 2
        self.after = span - self.before

    def forward(self, inputs: Tensor, valid: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """Compute the features of a batch.

        Args:
            inputs: (T, C, B).
            valid: (T, B) bool, False for padding; None if every step is valid.
            generator: source of dropout's random numbers; None drops nothing.

        Returns:
            (T, K, B), zero where padded.
        """
        padded = pad(inputs.transpose(0, 1), (0, 0, self.before, self.after))
        convolve = self._convolve_by_tap if self.weight.shape[-1] <= FEW_TAPS else self._convolve
        # Contiguous before the in-place activation, whose output autograd keeps for backward.
        features = leaky_relu(convolve(padded).transpose(0, 1).contiguous(), SLOPE, inplace=True)
        features = apply_dropout(features, self.dropout, generator, shared_dim=0)
        return features if valid is None else features.where(valid[:, None], 0)

    def extra_repr(self) -> str:
        """Return the sizes of the convolution for ``print``."""
        filters, channels, kernel = self.weight.shape
        return f"channels={channels}, filters={filters}, kernel={kernel}, dilation={self.dilation}"

    def _convolve_by_tap(self, padded: Tensor) -> Tensor:
        # Time is the slow dimension of a row, so the inputs of a tap are one contiguous range of columns.
        rows, steps = padded.shape[2], padded.shape[1] - self.before - self.after
        columns, features = padded.flatten(1), self.bias[:, None]
        for tap, weight in enumerate(self.weight.unbind(-1)):
            features = torch.addmm(features, weight, columns.narrow(1, tap * self.dilation * rows, steps * rows))
        return features.unflatten(1, (steps, rows))

    def _convolve(self, padded: Tensor) -> Tensor:
        # One image whose columns are the rows of the batch.
        return conv2d(padded[None], self.weight[..., None], self.bias, dilation=(self.dilation, 1))[0]


def apply_dropout(
    values: Tensor, probability: float, generator: torch.Generator | None, shared_dim: int | None = None
) -> Tensor:
    """Apply inverted dropout with an explicit generator.

    Args:
        values: any shape.
        probability: of a value to become 0; the others are scaled by 1 / (1 - probability).
        generator: source of the random numbers; None drops nothing.
        shared_dim: dimension along which all values share one mask; None for a mask of every value.
    """
    if generator is None:
        return values
    like = values if shared_dim is None else values.narrow(shared_dim, 0, 1)
    return values * torch.empty_like(like).bernoulli_(1 - probability, generator=generator).div_(1 - probability)
