"""Encoders and decoders of data in their own units, around ones of data of mean 0 and deviation 1."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from seqmem.errors import UserError


class Standardization(nn.Module):
    """x' = (x - mean) / deviation, and back; moves what it is given to where it is itself.

    Args:
        mean: of each channel, or of all values.
        deviation: the same; not 0.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)

    @classmethod
    def of(cls, sequences: Sequence[Tensor]) -> "Standardization":
        """Mean and deviation of each channel of series (T, C), or of all values of others; a constant is only shifted."""
        series = sequences[0].dim() == 2
        values = torch.cat([sequence if series else sequence.reshape(-1, 1) for sequence in sequences]).double()
        mean, deviation = values.mean(0), values.std(0, correction=0)
        deviation = deviation.where(deviation > 1e-6 * mean.abs(), 1.0)
        return cls(*(each.float() if series else each[0].float() for each in (mean, deviation)))

    def forward(self, values: Tensor) -> Tensor:
        """In units of the deviation from the mean.

        Raises:
            UserError: another number of channels, which would be spread over those that there are.
        """
        if self.mean.dim() and (values.dim() == 0 or values.shape[-1] != len(self.mean)):
            channels = f"(T, {len(self.mean)})"
            raise UserError(f"got a tensor of shape {tuple(values.shape)}, expected {channels} or (B, {channels[1:]}")
        return (values.to(self.mean.device) - self.mean) / self.deviation

    def undo(self, values: Tensor) -> Tensor:
        """In the data's units."""
        return values.to(self.mean.device) * self.deviation + self.mean


class StandardizedEncoder(nn.Module):
    """An encoder of data in their own units."""

    def __init__(self, standardization: Standardization, encoder: nn.Module):
        super().__init__()
        self.standardization, self.encoder = standardization, encoder

    def forward(self, inputs: Tensor, *arguments: Tensor | None) -> Tensor:
        """What ``encoder`` gives for standardised inputs; other arguments are the encoder's."""
        return self.encoder(self.standardization(inputs), *arguments)


class StandardizedDecoder(nn.Module):
    """A decoder to data in their own units."""

    def __init__(self, standardization: Standardization, decoder: nn.Module):
        super().__init__()
        self.standardization, self.decoder = standardization, decoder

    def forward(self, encodings: Tensor, seq_len: int | None = None, lengths: Tensor | None = None) -> Tensor:
        """What ``decoder`` gives, with the standardisation undone; beyond ``lengths`` it means nothing."""
        given = {name: value for name, value in (("seq_len", seq_len), ("lengths", lengths)) if value is not None}
        return self.standardization.undo(self.decoder(encodings.to(self.standardization.mean.device), **given))
