"""Long short-term memory (Hochreiter and Schmidhuber, 1997; with forget gate, Gers et al., 2000)."""

from typing import NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import linear

from seqmem.arguments import checked
from seqmem.cells.base import Recurrence
from seqmem.ops import sequence


class LSTMState(NamedTuple):
    """hidden: (B, H); memory: (B, H), the cell state c."""

    hidden: Tensor
    memory: Tensor


class LSTM(Recurrence[LSTMState]):
    """The equations, weight layout and initialisation of one layer of torch.nn.LSTM.

    i, f, o = sigmoid(W x + U h + b), g = tanh(W x + U h + b), c = f c + i g, h = o tanh(c); the rows of the weights hold
    i, f, g, o in this order.

    Args:
        input_size: C.
        hidden_size: H.
        bias: add a bias for the input and one for the hidden state.

    Raises:
        UserError: an argument of the wrong type or range.
    """

    name = "lstm"

    @checked
    def __init__(self, input_size: PositiveInt, hidden_size: PositiveInt = 256, bias: bool = True):
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_size, hidden_size))
        self.bias_ih = nn.Parameter(torch.empty(4 * hidden_size)) if bias else None
        self.bias_hh = nn.Parameter(torch.empty(4 * hidden_size)) if bias else None
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden_size**-0.5), hidden_size**-0.5)

    def initial_state(self, batch_size: int) -> LSTMState:
        """All zero."""
        zeros = self.weight_hh.new_zeros(batch_size, self.output_size)
        return LSTMState(zeros, zeros)

    def project(self, inputs: Tensor) -> Tensor:
        """W x + b of all four gates."""
        bias = None if self.bias_ih is None or self.bias_hh is None else self.bias_ih + self.bias_hh
        return linear(inputs, self.weight_ih, bias)

    def advance(self, projected: Tensor, state: LSTMState, tick: None) -> tuple[Tensor, LSTMState]:
        """One step."""
        i, f, g, o = (projected + linear(state.hidden, self.weight_hh)).chunk(4, -1)
        memory = torch.sigmoid(f) * state.memory + torch.sigmoid(i) * torch.tanh(g)
        hidden = torch.sigmoid(o) * torch.tanh(memory)
        return hidden, LSTMState(hidden, memory)

    def fallback_reason(self, inputs: Tensor) -> str:
        """Why a sequence goes step by step; empty if it does not."""
        return sequence.fallback_reason(inputs)

    def fused_forward(self, inputs: Tensor, state: LSTMState, lengths: Tensor | None, fresh: bool) -> tuple[Tensor, LSTMState]:
        """All steps in one call."""
        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        outputs, hidden, memory = sequence.lstm_sequence(inputs, state.hidden, state.memory, lengths, *weights)
        return outputs, LSTMState(hidden, memory)
