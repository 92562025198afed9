"""Long short-term memory (Hochreiter and Schmidhuber, 1997; with forget gate, Gers et al., 2000)."""

from typing import Any, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from seqmem.arguments import checked
from seqmem.cells.base import Recurrence
from seqmem.ops.lstm import lstm_projection, lstm_step


class LSTMState(NamedTuple):
    """State of an LSTM: ``hidden`` (B, H); ``memory`` (B, H), the cell state c."""

    hidden: Tensor
    memory: Tensor


class LSTM(Recurrence[LSTMState]):
    """One layer of torch.nn.LSTM: the same equations, weight layout and initialisation::

        i, f, o = sigmoid(W x + U h + b)
        g = tanh(W x + U h + b)
        c' = f c + i g
        h' = o tanh(c')

    The rows of the weights hold i, f, g, o in this order.

    Args:
        input_size: C.
        hidden_size: H.
        bias: add a bias for the input and one for the hidden state.

    Raises:
        UserError: an argument of the wrong type or range.
    """

    name = "lstm"
    operator = "lstm"
    hidden_is_output = True

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
        """Return zeros."""
        shape = (batch_size, self.output_size)
        return LSTMState(self.weight_hh.new_zeros(shape), self.weight_hh.new_zeros(shape))

    def project(self, inputs: Tensor) -> Tensor:
        """Compute W x + b of all four gates."""
        return lstm_projection(inputs, self.weight_ih, self.bias_ih, self.bias_hh)

    def advance(self, projected: Tensor, state: LSTMState, scheduled: None) -> tuple[Tensor, LSTMState]:
        """Compute one step."""
        hidden, memory = lstm_step(projected, state.hidden, state.memory, self.weight_hh)
        return hidden, LSTMState(hidden, memory)

    def fused_forward(
        self, run: Any, inputs: Tensor, state: LSTMState, lengths: Tensor | None, fresh: bool
    ) -> tuple[Tensor, LSTMState]:
        """Compute a whole sequence."""
        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        outputs, hidden, memory = run(inputs, state.hidden, state.memory, lengths, *weights)
        return outputs, LSTMState(hidden, memory)
