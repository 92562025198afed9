"""Inputs of networks that take a whole sequence at once."""

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError


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
        """Return the inputs of a batch as (B, T, C), with the times; one-hot tokens get ``dtype``."""
        inputs = self.embed(batch, dtype)
        return inputs if batch.times is None else torch.cat([batch.times[..., None].to(inputs.dtype), inputs], -1)

    def embed(self, batch: Batch, dtype: torch.dtype) -> Tensor:
        """Return the inputs (B, T, C) without the times; those that were embedded before stay as they are."""
        inputs = batch.inputs
        if not self.spec.tokens or inputs.is_floating_point():
            return inputs
        return self.embedding(inputs) if self.embedding is not None else one_hot(inputs, self.spec.input_size).to(dtype)
