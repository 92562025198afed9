"""Autoencoder for sequences of frames: convolutions over each frame, LSTMs over time (sequitur's CONV_LSTM_AE)."""

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
from seqmem.models.sequitur_state_dict import accept_sequitur_names

Sizes = PositiveInt | tuple[PositiveInt, ...] | list[PositiveInt]


class CONV_LSTM_AE(nn.Module):
    """Convolutions that map each frame to a vector of V numbers, and an LSTM_AE of the vectors.

        >>> import torch
        >>> model = CONV_LSTM_AE((50, 100), encoding_dim=16, kernel=(5, 8), stride=(3, 5), h_conv_channels=[4, 8])
        >>> code = model.encoder(torch.randn(22, 50, 100))  # (16,)
        >>> model.decoder(code, seq_len=22).shape
        torch.Size([22, 50, 100])

    V is the sum of the frame's dimensions. Loosely after Ng et al. (2015), "Beyond short snippets". The convolutions have no
    padding and a ReLU after each; the transposed convolutions of the decoder have no activation.

    Args:
        input_dims: shape of a frame, (H, W) or (D, H, W).
        encoding_dim: E.
        kernel: size of every convolution's kernel; one number, or one per dimension.
        stride: stride of every convolution; one number, or one per dimension.
        h_conv_channels: channels of each convolution.
        h_lstm_channels: ``h_dims`` of the LSTM_AE.

    Raises:
        UserError: an argument has the wrong type or range, or the frame is too small for the kernels.
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
        frame = tuple(input_dims)
        if len(frame) not in (2, 3):
            raise UserError(f"CONV_LSTM_AE: got input_dims={frame}, expected the shape of a frame, (H, W) or (D, H, W)")
        kernels, strides = _per_dimension("kernel", kernel, len(frame)), _per_dimension("stride", stride, len(frame))
        sizes = _convolved_sizes(frame, kernels, strides, len(h_conv_channels))
        width = sum(frame)
        sequences = LSTM_AE(width, encoding_dim, h_lstm_channels)
        channels = [1, *h_conv_channels]
        self.encoder = ConvLSTMEncoder(FrameEncoder(sizes, channels, kernels, strides, width), sequences.encoder)
        self.decoder = ConvLSTMDecoder(sequences.decoder, FrameDecoder(sizes, channels, kernels, strides, width))
        accept_sequitur_names(self, r"lstm_ae\.(?P<half>encoder|decoder)\.(?P<rest>.*)", "{half}.sequence.{rest}")
        for half, folder, convolution in (("encoder", "encoder", "conv"), ("decoder", "decoder_layers", "deconv")):
            layer = rf"conv_ae\.{folder}\.(?P<index>\d+)\."
            ours = f"{half}.frames.convolutions.{{index}}.{{rest}}"
            accept_sequitur_names(self, rf"{layer}{convolution}\.(?P<rest>\w+)", ours)
            accept_sequitur_names(self, rf"{layer}(?P<rest>weight|bias)", f"{half}.frames.linear.{{rest}}")

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Reconstruct sequences.

        Args:
            inputs: (T, H, W) or (T, D, H, W), or a batch of these with B in front.
            lengths: (B,) int64 valid steps of each row of a batch; None if all are valid. Padding changes no output.

        Returns:
            The shape of ``inputs``.
        """
        steps = inputs.shape[-1 - self.encoder.frames.dimensions]
        return self.decoder(self.encoder(inputs, lengths), steps, lengths)


class ConvLSTMEncoder(nn.Module):
    """A frame encoder, and an LSTM encoder of its vectors."""

    def __init__(self, frames: "FrameEncoder", sequence: LSTMEncoder):
        super().__init__()
        self.frames, self.sequence = frames, sequence

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Encode a sequence (T, *frame) -> (E,), or a batch (B, T, *frame) with ``lengths`` (B,) -> (B, E).

        Raises:
            UserError: the inputs have a different shape.
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
    """An LSTM decoder, and a frame decoder of its vectors."""

    def __init__(self, sequence: LSTMDecoder, frames: "FrameDecoder"):
        super().__init__()
        self.sequence, self.frames = sequence, frames

    def forward(self, encodings: Tensor, seq_len: int | None = None, lengths: Tensor | None = None) -> Tensor:
        """Decode one encoding (E,) -> (T, *frame), or a batch (B, E) -> (B, T, *frame), as :class:`LSTMDecoder` does."""
        return masked(self.frames(self.sequence(encodings, seq_len, lengths)), lengths)


class FrameEncoder(nn.Module):
    """Convolutions with ReLU, and a linear map of the flattened result to V numbers.

    Args:
        sizes: shape of the frame, then of each convolution's result.
        channels: 1, then those of each convolution.
        kernels: one size per dimension.
        strides: one size per dimension.
        width: V.
    """

    def __init__(self, sizes: list[tuple[int, ...]], channels: list[int], kernels: Any, strides: Any, width: int):
        super().__init__()
        self.sizes, self.dimensions = sizes, len(kernels)
        convolution = nn.Conv2d if self.dimensions == 2 else nn.Conv3d
        self.convolutions = nn.ModuleList(convolution(*pair, kernels, strides) for pair in pairwise(channels))
        self.linear = nn.Linear(channels[-1] * math.prod(sizes[-1]), width)

    def forward(self, frames: Tensor) -> Tensor:
        """Encode frames (..., *frame) -> (..., V)."""
        outputs = frames.reshape(-1, 1, *self.sizes[0])
        for convolution in self.convolutions:
            outputs = torch.relu(convolution(outputs))
        return self.linear(outputs.flatten(1)).view(*frames.shape[: -self.dimensions], self.linear.out_features)


class FrameDecoder(nn.Module):
    """A linear map, and transposed convolutions that restore the size of each layer of the encoder.

    Args:
        sizes: those of the encoder.
        channels: those of the encoder.
        kernels: one size per dimension.
        strides: one size per dimension.
        width: V.
    """

    def __init__(self, sizes: list[tuple[int, ...]], channels: list[int], kernels: Any, strides: Any, width: int):
        super().__init__()
        self.sizes, self.channels, self.dimensions = sizes[::-1], channels[::-1], len(kernels)
        convolution = nn.ConvTranspose2d if self.dimensions == 2 else nn.ConvTranspose3d
        self.linear = nn.Linear(width, channels[-1] * math.prod(sizes[-1]))
        self.convolutions = nn.ModuleList(convolution(*pair, kernels, strides) for pair in pairwise(self.channels))

    def forward(self, vectors: Tensor) -> Tensor:
        """Decode vectors (..., V) -> (..., *frame)."""
        outputs = self.linear(vectors).view(-1, self.channels[0], *self.sizes[0])
        for convolution, size in zip(self.convolutions, self.sizes[1:], strict=True):
            outputs = convolution(outputs, output_size=size)
        return outputs.view(*vectors.shape[:-1], *self.sizes[-1])


def _per_dimension(name: str, value: Any, dimensions: int) -> tuple[int, ...]:
    sizes = (value,) * dimensions if isinstance(value, int) else tuple(value)
    if len(sizes) != dimensions:
        raise UserError(f"CONV_LSTM_AE: got {name}={sizes}, expected one size, or one for each of {dimensions} dimensions")
    return sizes


def _convolved_sizes(
    frame: tuple[int, ...], kernels: tuple[int, ...], strides: tuple[int, ...], convolutions: int
) -> list[tuple[int, ...]]:
    """Return the shape of a frame, and its shape after each convolution."""
    sizes = [frame]
    for _ in range(convolutions):
        sizes.append(tuple((size - k) // s + 1 for size, k, s in zip(sizes[-1], kernels, strides, strict=True)))
        if min(sizes[-1]) < 1:
            raise UserError(
                f"CONV_LSTM_AE: got kernel={kernels} and stride={strides} for {convolutions} convolutions, "
                f"expected smaller ones, since a frame of {frame} becomes {sizes[-2]}"
            )
    return sizes
