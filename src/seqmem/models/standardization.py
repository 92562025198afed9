"""Standardization of data, and encoders and decoders that apply it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from seqmem.errors import UserError


class Standardization(nn.Module):
    """The map x' = (x - mean) / deviation and its inverse; results are on the device of this module.

    Args:
        mean: (C,) one per channel, or a scalar for all values.
        deviation: the same shape; not 0.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)

    @classmethod
    def of(cls, sequences: Sequence[Tensor]) -> "Standardization":
        """Compute the statistics of each channel of series (T, C), or of all values of sequences of other shapes.

        A constant channel is only shifted: its deviation is set to 1.

        Raises:
            UserError: float32 resolves the values of a channel in steps of a quarter of their deviation or more.
        """
        series = sequences[0].dim() == 2
        values = torch.cat([sequence if series else sequence.reshape(-1, 1) for sequence in sequences]).double()
        mean, deviation = values.mean(0), values.std(0, correction=0)
        varies = deviation > 1e-12 * mean.abs()
        deviation = deviation.where(varies, 1.0)
        step = torch.finfo(torch.float32).eps * mean.abs()
        for channel in (varies & (deviation < 4 * step)).nonzero()[:1, 0].tolist():
            place = f"channel {channel}: " if series else ""
            raise UserError(
                f"{place}got values near {mean[channel]:g} with a deviation of {deviation[channel]:.2g}, which float32 "
                f"resolves in steps of {step[channel]:.2g}; subtract a constant from them"
            )
        return cls(*(each.float() if series else each[0].float() for each in (mean, deviation)))

    def forward(self, values: Tensor) -> Tensor:
        """Standardize values.

        Raises:
            UserError: the number of channels differs; broadcasting would hide that.
        """
        if self.mean.dim() and (values.dim() == 0 or values.shape[-1] != len(self.mean)):
            channels = f"(T, {len(self.mean)})"
            raise UserError(f"got a tensor of shape {tuple(values.shape)}, expected {channels} or (B, {channels[1:]}")
        return (values.to(self.mean.device) - self.mean) / self.deviation

    def undo(self, values: Tensor) -> Tensor:
        """Convert standardized values back to the data's units."""
        return values.to(self.mean.device) * self.deviation + self.mean


class StandardizedEncoder(nn.Module):
    """An encoder that takes data in its own units."""

    def __init__(self, standardization: Standardization, encoder: nn.Module):
        super().__init__()
        self.standardization, self.encoder = standardization, encoder

    def forward(self, inputs: Tensor, *arguments: Tensor | None) -> Tensor:
        """Encode the standardized inputs; further arguments go to ``encoder``."""
        return self.encoder(self.standardization(inputs), *arguments)


class StandardizedDecoder(nn.Module):
    """A decoder that returns data in its own units."""

    def __init__(self, standardization: Standardization, decoder: nn.Module):
        super().__init__()
        self.standardization, self.decoder = standardization, decoder

    def forward(self, encodings: Tensor, seq_len: int | None = None, lengths: Tensor | None = None) -> Tensor:
        """Decode and undo the standardization; outputs beyond ``lengths`` have no meaning."""
        options = {name: value for name, value in (("seq_len", seq_len), ("lengths", lengths)) if value is not None}
        return self.standardization.undo(self.decoder(encodings.to(self.standardization.mean.device), **options))
