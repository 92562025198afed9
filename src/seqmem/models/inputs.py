"""Inputs of networks that take a whole sequence at once."""

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.ops.lengths import checked_lengths
from seqmem.sequence import checks


class Inputs(nn.Module):
    """Values, or tokens embedded or one-hot; the times of the steps, if any, are the first channel.

    Args:
        spec: the data set's spec.
        embedding_size: width of a learned embedding of tokens; None for the data set's own, or one-hot if it names none.

    Attributes:
        size: C, channels of the result.

    Raises:
        UserError: an embedding is requested for inputs that are not tokens.
    """

    def __init__(self, spec: DataSpec, embedding_size: int | None):
        super().__init__()
        if embedding_size is not None and not spec.tokens:
            raise UserError(
                f"model.embedding_size: got {embedding_size}, expected null, since {spec.name} has no tokens to embed"
            )
        embedding_size = embedding_size or spec.embedding_size
        self.spec = spec
        self.embedding = nn.Embedding(spec.input_size, embedding_size) if embedding_size else None
        self.size = (embedding_size or spec.input_size) + spec.times

    def forward(self, batch: Batch, dtype: torch.dtype) -> Tensor:
        """Return the inputs of a batch as (B, T, C), with the times; one-hot tokens get ``dtype``, the type of the weights.

        Raises:
            UserError: inputs, lengths or times of a different type or shape, times that the data set does not have, or no times
                where it has them.
        """
        self._check(batch, dtype)
        inputs = self.embed(batch, dtype)
        return inputs if batch.times is None else torch.cat([batch.times[..., None].to(inputs.dtype), inputs], -1)

    def embed(self, batch: Batch, dtype: torch.dtype) -> Tensor:
        """Return the inputs (B, T, C) without the times; those that were embedded before stay as they are."""
        inputs = batch.inputs
        if not self.spec.tokens or inputs.is_floating_point():
            return inputs
        return self.embedding(inputs) if self.embedding is not None else one_hot(inputs, self.spec.input_size).to(dtype)

    def _check(self, batch: Batch, dtype: torch.dtype) -> None:
        """Refuse a batch that does not fit, without looking at values on a GPU."""
        label, inputs = f"model of {self.spec.name}", batch.inputs
        checks.check_tensor(label, inputs)
        tokens = self.spec.tokens and (inputs.dim() == 2 or not inputs.is_floating_point())
        check_shape(label, inputs, () if tokens else (self.size - self.spec.times,))
        if not tokens:
            checks.check_dtype(label, inputs, dtype)
        elif inputs.dtype != torch.int64 and (inputs.dtype != torch.int32 or self.embedding is None):
            raise UserError(f"{label}: got tokens of {inputs.dtype}, expected torch.int64")
        check_times(label, batch.times, inputs, self.spec)
        checked_lengths(label, batch.lengths, inputs.shape[0], inputs.shape[1], inputs.device)


def check_shape(label: str, inputs: Tensor, width: tuple[int, ...]) -> None:
    """Refuse inputs that are not (B, T, C), or (B, T) tokens.

    Args:
        label: name of the model in messages.
        inputs: any shape.
        width: (C,), or () for tokens.

    Raises:
        UserError: a different shape.
    """
    if inputs.dim() != 2 + len(width) or inputs.shape[2:] != width:
        expected = f"(B, T, {width[0]})" if width else "(B, T), tokens"
        raise UserError(f"{label}: got inputs of shape {tuple(inputs.shape)}, expected {expected}")


def check_times(label: str, times: Tensor | None, inputs: Tensor, spec: DataSpec) -> None:
    """Refuse times that a data set does not have, none where it has them, and times of a different shape than (B, T).

    Raises:
        UserError: one of these.
    """
    if times is None and spec.times:
        raise UserError(f"{label}: got no times, expected times (B, T), which the data set has")
    if times is not None:
        if not spec.times:
            raise UserError(f"{label}: got times, expected none: the data set has no times of the steps")
        checks.check_times(label, times, tuple(inputs.shape[:2]))
