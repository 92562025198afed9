"""What networks of layers of cells share: embedding, layers, states and head."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from seqmem import cells
from seqmem.data.batch import Batch
from seqmem.data.masks import masked
from seqmem.data.places import output_steps
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.models.base import SequenceModel, check_states, refuse_reconstruction
from seqmem.sequence import SequenceLayer


class LayeredNetwork(SequenceModel):
    """Embedding of tokens, layers of cells, each on the outputs of the one below, and a head for the data set's outputs.

    Attributes:
        embeds_values: ``embedding_size`` also applies to real-valued inputs, as the width of a linear map.

    Args:
        spec: spec of the data set.
        layers: name and arguments of the cell of each layer, from the bottom up.
        embedding_size: width of a learned embedding; None for the data set's own.
        output_hiddens: widths of linear layers, without activations, before the head.
        dropout: probability of dropping an output channel of a layer for a whole sequence.
    """

    carries = True
    embeds_values: ClassVar[bool] = False

    embedding: nn.Embedding | nn.Linear | None
    head: nn.Module

    def __init__(
        self,
        spec: DataSpec,
        layers: Sequence[tuple[str, Mapping[str, Any]]],
        embedding_size: int | None,
        output_hiddens: list[int],
        dropout: float,
    ):
        super().__init__()
        refuse_reconstruction(self, spec)
        for cell, _ in layers:
            if cells.get(cell).timed and not spec.times:
                raise UserError(
                    f"model.cell: {cell} requires the times of the steps, and {spec.name} has none; "
                    "dataset=ct dataset.timestamp=true has times"
                )
        self.spec, self.dropout = spec, dropout
        self.embedding = self._make_embedding(embedding_size)
        width = (embedding_size or spec.embedding_size or spec.input_size) + spec.times
        self.layers = nn.ModuleList()
        for k, (cell, arguments) in enumerate(layers):
            kind = cells.get(cell)
            layer = kind(input_size=width + (kind.timed and k > 0), **arguments)
            self.layers.append(layer)
            width = layer.output_size
        self.head = self._make_head(width, output_hiddens, spec.output_size)

    def forward(self, batch: Batch) -> Tensor:
        """Compute outputs: (B, K) at each row's last step, (B, k, K) at its last k steps, or (B, T, K) at every step."""
        return self.carry(batch)[0]

    def carry(self, batch: Batch, state: Sequence[Any] | None = None) -> tuple[Tensor, list[Any]]:
        """Compute the outputs of :meth:`forward` and the list of the layers' states, from such a list.

        Raises:
            UserError: a state that does not have one part for each layer.
        """
        check_states(self.name, state, len(self.layers))
        outputs = self._embedded(batch)
        states = []
        for k, layer in enumerate(self.layers):
            times = batch.times if k == 0 or layer.timed else None
            outputs, after = layer(outputs, None if state is None else state[k], lengths=batch.lengths, times=times)
            states.append(after)
            if k + 1 == len(self.layers) and self._ends_in_hidden(layer, state, batch):
                return self.head(self._dropped(after.hidden[:, None])[:, 0]), states
            outputs = self._dropped(outputs)
        return self.head(output_steps(outputs, batch, self.spec.output_steps)), states

    def _ends_in_hidden(self, layer: nn.Module, state: Any, batch: Batch) -> bool:
        """Return whether the hidden state is the last output: in training, its gradient takes no tensor (B, T, H).

        Rows of length 0 have it from the initial state alone.
        """
        known = isinstance(layer, cells.Recurrence) and layer.hidden_is_output
        return known and self.training and self.spec.output_steps == 0 and (state is None or batch.lengths is None)

    def embed(self, batch: Batch) -> Tensor:
        """Return the inputs in floating point, see :meth:`SequenceModel.embed`."""
        return self._embedded(batch) if self.spec.tokens else batch.inputs

    def initial_state(self, batch_size: int) -> list[Any]:
        """Return the initial states of the layers."""
        return [layer.initial_state(batch_size) for layer in self.layers if isinstance(layer, SequenceLayer)]

    def _make_embedding(self, size: int | None) -> nn.Embedding | nn.Linear | None:
        """Create the embedding of tokens, or the linear map of real-valued inputs; None for the inputs themselves."""
        if size is not None and not (self.spec.tokens or self.embeds_values):
            raise UserError(f"model.embedding_size: got {size}, expected null, since {self.spec.name} has no tokens to embed")
        size = size or self.spec.embedding_size
        if not size:
            return None
        channels = self.spec.input_size
        return nn.Embedding(channels, size) if self.spec.tokens else nn.Linear(channels, size, bias=False)

    def _make_head(self, width: int, hiddens: list[int], output_size: int) -> nn.Module:
        """Create the map from the last layer's outputs (..., width) to (..., output_size)."""
        return nn.Sequential(*(nn.Linear(fan_in, fan_out) for fan_in, fan_out in pairwise([width, *hiddens, output_size])))

    def _embedded(self, batch: Batch) -> Tensor:
        inputs = batch.inputs
        if self.spec.tokens and inputs.is_floating_point():  # by embed
            return inputs
        if self.embedding is not None:
            return self.embedding(inputs if self.spec.tokens else masked(inputs, batch.lengths))
        return one_hot(inputs, self.spec.input_size).to(next(self.head.parameters()).dtype) if self.spec.tokens else inputs

    def _dropped(self, outputs: Tensor) -> Tensor:
        if not self.training or self.dropout == 0:
            return outputs
        mask = torch.empty_like(outputs[:, :1]).bernoulli_(1 - self.dropout) / (1 - self.dropout)
        return outputs * mask
