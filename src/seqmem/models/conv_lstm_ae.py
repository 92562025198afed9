"""An autoencoder for sequences of frames: convolutions over each frame, LSTMs over time (sequitur's CONV_LSTM_AE)."""

import math
from itertools import pairwise
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from seqmem.arguments import checked
from seqmem.data.masks import masked
from seqmem.errors import UserError
from seqmem.models.lstm_ae import LSTM_AE, LSTMDecoder, LSTMEncoder
from seqmem.models.sequitur_names import also_load

Sizes = PositiveInt | tuple[PositiveInt, ...] | list[PositiveInt]


class CONV_LSTM_AE(nn.Module):
    """Each frame becomes a vector of as many numbers as its sides are long together; an LSTM_AE encodes the sequence of these.

        >>> import torch
        >>> model = CONV_LSTM_AE((50, 100), encoding_dim=16, kernel=(5, 8), stride=(3, 5), h_conv_channels=[4, 8])
        >>> code = model.encoder(torch.randn(22, 50, 100))  # (16,)
        >>> model.decoder(code, seq_len=22).shape
        torch.Size([22, 50, 100])

    Loosely after Ng et al. (2015), "Beyond short snippets". The convolutions are not padded, with ReLU after each; the
    transposed ones of the decoder have none.

    Args:
        input_dims: the frame's shape (H, W) or (D, H, W).
        encoding_dim: E.
        kernel: of each convolution; one size, or one a dimension.
        stride: the same.
        h_conv_channels: channels of each convolution.
        h_lstm_channels: ``h_dims`` of the LSTM_AE.

    Raises:
        UserError: an argument of the wrong type or range, or a frame that is too small for the kernels.
    """

    @checked
    def __init__(
        self,
        input_dims: tuple[PositiveInt, ...] | list[PositiveInt],
        encoding_dim: PositiveInt,
        kernel: Sizes = 3,
        stride: Sizes = 1,
        h_conv_channels: list[PositiveInt] = [1],  # noqa: B006
        h_lstm_channels: list[PositiveInt] = [],  # noqa: B006
    ):
        super().__init__()
        if len(input_dims) not in (2, 3):
            raise UserError(
                f"CONV_LSTM_AE: got input_dims={tuple(input_dims)}, expected the shape of a frame, (H, W) or (D, H, W)"
            )
        kernels, strides = _each("kernel", kernel, len(input_dims)), _each("stride", stride, len(input_dims))
        sizes = [tuple(input_dims)]
        for _ in h_conv_channels:
            sizes.append(tuple((size - k) // s + 1 for size, k, s in zip(sizes[-1], kernels, strides, strict=True)))
            if min(sizes[-1]) < 1:
                raise UserError(
                    f"CONV_LSTM_AE: got kernel={kernels} and stride={strides} for {len(h_conv_channels)} convolutions, "
                    f"expected smaller ones, since a frame of {sizes[0]} becomes {sizes[-2]}"
                )
        width = sum(input_dims)
        sequences = LSTM_AE(width, encoding_dim, h_lstm_channels)
        channels = [1, *h_conv_channels]
        self.encoder = ConvLSTMEncoder(FrameEncoder(sizes, channels, kernels, strides, width), sequences.encoder)
        self.decoder = ConvLSTMDecoder(sequences.decoder, FrameDecoder(sizes, channels, kernels, strides, width))
        also_load(self, r"lstm_ae\.(?P<half>encoder|decoder)\.(?P<rest>.*)", "{half}.sequence.{rest}")
        for half, folder, convolution in (("encoder", "encoder", "conv"), ("decoder", "decoder_layers", "deconv")):
            layer = rf"conv_ae\.{folder}\.(?P<index>\d+)\."
            also_load(self, rf"{layer}{convolution}\.(?P<rest>\w+)", f"{half}.frames.convolutions.{{index}}.{{rest}}")
            also_load(self, rf"{layer}(?P<rest>weight|bias)", f"{half}.frames.linear.{{rest}}")

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Sequences -> their reconstructions, of the same shape.

        Args:
            inputs: (T, H, W) or (T, D, H, W), or a batch of these with B in front.
            lengths: (B,) int64 valid steps of each row of a batch; None if all are. What is padded has no influence.
        """
        steps = inputs.shape[-1 - self.encoder.frames.dimensions]
        return self.decoder(self.encoder(inputs, lengths), steps, lengths)


class ConvLSTMEncoder(nn.Module):
    """``frames`` makes a vector of each frame, ``sequence`` an encoding of the vectors."""

    def __init__(self, frames: "FrameEncoder", sequence: LSTMEncoder):
        super().__init__()
        self.frames, self.sequence = frames, sequence

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(T, *frame) -> (E,), or a batch (B, T, *frame) with ``lengths`` (B,) of its rows -> (B, E).

        Raises:
            UserError: another shape.
        """
        frame = self.frames.sizes[0]
        steps = inputs.shape[: -len(frame)]
        if len(steps) not in (1, 2) or inputs.shape[len(steps) :] != frame or steps[-1] == 0:
            shape = ", ".join(map(str, frame))
            raise UserError(
                f"CONV_LSTM_AE: got a tensor of shape {tuple(inputs.shape)}, expected (T, {shape}) or (B, T, {shape})"
            )
        return self.sequence(self.frames(masked(inputs, lengths)), lengths)


class ConvLSTMDecoder(nn.Module):
    """``sequence`` makes vectors of an encoding, ``frames`` a frame of each vector."""

    def __init__(self, sequence: LSTMDecoder, frames: "FrameDecoder"):
        super().__init__()
        self.sequence, self.frames = sequence, frames

    def forward(self, encodings: Tensor, seq_len: int | None = None, lengths: Tensor | None = None) -> Tensor:
        """(E,) -> (T, *frame), or (B, E) -> (B, T, *frame); the arguments are those of :class:`LSTMDecoder`."""
        return masked(self.frames(self.sequence(encodings, seq_len, lengths)), lengths)


class FrameEncoder(nn.Module):
    """Convolutions with ReLU, and a linear map of all that comes out of them."""

    def __init__(self, sizes: list[tuple[int, ...]], channels: list[int], kernels: Any, strides: Any, width: int):
        super().__init__()
        self.sizes, self.dimensions = sizes, len(kernels)
        convolution = nn.Conv2d if self.dimensions == 2 else nn.Conv3d
        self.convolutions = nn.ModuleList(convolution(*pair, kernels, strides) for pair in pairwise(channels))
        self.linear = nn.Linear(channels[-1] * math.prod(sizes[-1]), width)

    def forward(self, frames: Tensor) -> Tensor:
        """(..., *frame) -> (..., V)."""
        outputs = frames.reshape(-1, 1, *self.sizes[0])
        for convolution in self.convolutions:
            outputs = torch.relu(convolution(outputs))
        return self.linear(outputs.flatten(1)).view(*frames.shape[: -self.dimensions], self.linear.out_features)


class FrameDecoder(nn.Module):
    """A linear map, and transposed convolutions back to the size of each layer of the encoder."""

    def __init__(self, sizes: list[tuple[int, ...]], channels: list[int], kernels: Any, strides: Any, width: int):
        super().__init__()
        self.sizes, self.channels, self.dimensions = sizes[::-1], channels[::-1], len(kernels)
        convolution = nn.ConvTranspose2d if self.dimensions == 2 else nn.ConvTranspose3d
        self.linear = nn.Linear(width, channels[-1] * math.prod(sizes[-1]))
        self.convolutions = nn.ModuleList(convolution(*pair, kernels, strides) for pair in pairwise(self.channels))

    def forward(self, vectors: Tensor) -> Tensor:
        """(..., V) -> (..., *frame)."""
        outputs = self.linear(vectors).view(-1, self.channels[0], *self.sizes[0])
        for convolution, size in zip(self.convolutions, self.sizes[1:], strict=True):
            outputs = convolution(outputs, output_size=size)
        return outputs.view(*vectors.shape[:-1], *self.sizes[-1])


def _each(name: str, value: Any, dimensions: int) -> tuple[int, ...]:
    sizes = (value,) * dimensions if isinstance(value, int) else tuple(value)
    if len(sizes) != dimensions:
        raise UserError(f"CONV_LSTM_AE: got {name}={sizes}, expected one size, or one for each of {dimensions} dimensions")
    return sizes
