"""What a model that takes a sequence as a whole makes of a batch's inputs."""

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError


class Inputs(nn.Module):
    """Values as they are, tokens embedded or one-hot, and the times of the steps, where there are any, as first channel.

    Args:
        spec: the data set they are of.
        embedding_size: width of a learned embedding of tokens; None for the one that the data set names, or for one-hot if it
            names none.

    Attributes:
        size: C.

    Raises:
        UserError: an embedding of inputs that are no tokens.
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
        """(B, T, C) of a floating-point type, which one-hot tokens have too."""
        inputs = batch.inputs
        if self.embedding is not None:
            inputs = self.embedding(inputs)
        elif self.spec.tokens:
            inputs = one_hot(inputs, self.spec.input_size).to(dtype)
        return inputs if batch.times is None else torch.cat([batch.times[..., None].to(inputs.dtype), inputs], -1)
