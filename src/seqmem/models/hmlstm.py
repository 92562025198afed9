"""The network of the HM-LSTM paper: a stack of layers and an output module with gated layers."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import linear

from seqmem.arguments import checked
from seqmem.cells.hmlstm import HMLSTM, HMLSTMState
from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.models.base import check_states
from seqmem.models.recurrent import RecurrentNetwork


class MultiscaleNetwork(RecurrentNetwork):
    """A linear embedding, an HM-LSTM, and its output module for the outputs that the data set defines.

    Args:
        spec: spec of the data set.
        cell: hmlstm.
        cell_args: arguments of :class:`seqmem.cells.HMLSTM` other than ``input_size``, ``num_layers`` included.
        embedding_size: width of a learned linear embedding of the inputs; None for the data set's own embedding of tokens, or
            for the inputs themselves with one-hot tokens.
        output_embedding_size: width of the output module's embedding of the gated layers.
        output_hiddens: widths of tanh layers between this embedding and the head.
        dropout: probability of dropping an output channel of a layer for a whole sequence.

    Raises:
        UserError: an argument of the wrong type or range, or an unknown argument of the cell.
    """

    name = "hmlstm"
    segments = True
    embeds_values = True

    @checked
    def __init__(
        self,
        spec: DataSpec,
        cell: Literal["hmlstm"] = "hmlstm",
        cell_args: dict[str, Any] = {},  # noqa: B006
        embedding_size: PositiveInt | None = None,
        output_embedding_size: PositiveInt = 256,
        output_hiddens: list[PositiveInt] = [],  # noqa: B006
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ):
        self._output_embedding_size = output_embedding_size
        super().__init__(spec, cell, cell_args, embedding_size=embedding_size, output_hiddens=output_hiddens, dropout=dropout)

    def _make_head(self, width: int, hiddens: list[int], output_size: int) -> nn.Module:
        return OutputModule(self._stack.sizes, self._output_embedding_size, hiddens, output_size)

    @property
    def _stack(self) -> HMLSTM:
        (stack,) = self.layers
        assert isinstance(stack, HMLSTM)
        return stack

    def boundaries(self, batch: Batch, state: Sequence[HMLSTMState] | None = None) -> Tensor:
        """Compute the boundary indicators (B, T, L) of a batch, from a ``state`` that :meth:`carry` returned."""
        check_states(self.name, state, 1)
        before = None if state is None else state[0]
        return self._stack.boundaries(self._embedded(batch), before, batch.lengths, batch.times)


class OutputModule(nn.Module):
    """The output module for the hidden states h of all layers (equations 11 and 12 of the paper)::

        gamma_l = sigmoid(w_l [h_1; ...; h_L])
        e = ReLU(sum over l of gamma_l W_l h_l)
        y = V tanh(... tanh(V_1 e + b_1)) + b

    The paper has no tanh layers. Initial weights are Glorot-uniform, and so are initial biases, as matrices of one row.

    Args:
        sizes: D_l of each layer.
        embedding_size: E, the width of e.
        hiddens: widths of the tanh layers.
        output_size: K.
    """

    def __init__(self, sizes: Sequence[int], embedding_size: int, hiddens: Sequence[int], output_size: int):
        super().__init__()
        self.sizes = list(sizes)
        self.gate = nn.Parameter(torch.empty(len(sizes), sum(sizes)))
        self.embedding = nn.Parameter(torch.empty(embedding_size, sum(sizes)))
        widths = [embedding_size, *hiddens, output_size]
        self.layers = nn.ModuleList(nn.Linear(fan_in, fan_out) for fan_in, fan_out in pairwise(widths))
        for parameter in self.parameters():
            nn.init.xavier_uniform_(parameter if parameter.dim() == 2 else parameter.data[None])

    def forward(self, hidden: Tensor) -> Tensor:
        """Map hidden states (..., D) to outputs (..., K)."""
        gamma = torch.sigmoid(linear(hidden, self.gate)).split(1, -1)
        gated = [weight * h for weight, h in zip(gamma, hidden.split(self.sizes, -1), strict=True)]
        outputs = torch.relu(linear(torch.cat(gated, -1), self.embedding))
        *hiddens, head = self.layers
        for layer in hiddens:
            outputs = torch.tanh(layer(outputs))
        return head(outputs)
