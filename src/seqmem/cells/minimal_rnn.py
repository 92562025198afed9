"""Minimal recurrent network (Chen, 2017): only the gate depends on the hidden state."""

from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from seqmem.arguments import checked
from seqmem.cells.base import Recurrence
from seqmem.cells.initializers import Initializer, initialize, initialize_bias
from seqmem.cells.mgu import initialize_gate
from seqmem.cells.rnn import RNNState
from seqmem.ops.activations import Activation, activation


class MinimalRNN(Recurrence[RNNState]):
    """The minimal recurrent network of HiPPO's code::

        c = f(W_hx x + b_hx)
        g = sigmoid(W_gx x + W_gh h + b_g)
        h' = (1 - g) h + g c

    The gate is a function of x, as in that code, and not of c, as in Chen (2017).

    Parameters: ``weight_hx`` (2H, C) and ``bias_hx`` (2H,) hold the rows of the candidate, then those of the gate;
    ``weight_gh`` (H, H).

    Args:
        input_size: C.
        hidden_size: H.
        hidden_activation: f, the activation.
        hx_initializer: initialiser of W_hx (H, C). The gate's weights are normal with variance 1 / (C + H).
        zero_bias_init: start b_hx at zero instead of uniform within 1 / sqrt(C).

    Raises:
        UserError: an argument of the wrong type or range.
    """

    name = "mrnn"
    operator = "gated"
    hidden_is_output = True

    @checked
    def __init__(
        self,
        input_size: PositiveInt,
        hidden_size: PositiveInt = 256,
        hidden_activation: Activation = "tanh",
        hx_initializer: Initializer = "xavier_normal",
        zero_bias_init: bool = False,
    ):
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size
        self.hidden_activation = hidden_activation
        self.weight_hx = nn.Parameter(torch.empty(2 * hidden_size, input_size))
        self.weight_gh = nn.Parameter(torch.empty(hidden_size, hidden_size))
        self.bias_hx = nn.Parameter(torch.zeros(2 * hidden_size))
        with torch.no_grad():
            initialize(self.weight_hx[:hidden_size], hx_initializer)
            initialize_gate(self.weight_hx[hidden_size:], self.weight_gh, self.bias_hx[hidden_size:])
            if not zero_bias_init:
                initialize_bias(self.bias_hx[:hidden_size], input_size)

    def initial_state(self, batch_size: int) -> RNNState:
        """Return a zero hidden state."""
        return RNNState(self.weight_gh.new_zeros(batch_size, self.output_size))

    def project(self, inputs: Tensor) -> Tensor:
        """Compute c before its activation, and the gate's terms in x: (..., C) -> (..., 2H)."""
        return linear(inputs, self.weight_hx, self.bias_hx)

    def advance(self, projected: Tensor, state: RNNState, scheduled: None) -> tuple[Tensor, RNNState]:
        """Compute one step."""
        candidate, gate = projected.chunk(2, -1)
        candidate = activation(self.hidden_activation)(candidate.to(state.hidden.dtype))
        gate = torch.sigmoid((gate + linear(state.hidden, self.weight_gh)).to(state.hidden.dtype))
        hidden = torch.lerp(state.hidden, candidate, gate)
        return hidden, RNNState(hidden)

    def fused_forward(
        self, run: Any, inputs: Tensor, state: RNNState, lengths: Tensor | None, fresh: bool
    ) -> tuple[Tensor, RNNState]:
        """Compute a whole sequence as that of a gated cell without a term in h in its candidate."""
        weights = (self.weight_hx, pad(self.weight_gh, (0, 0, self.output_size, 0)), self.bias_hx)
        outputs, hidden = run(inputs, state.hidden, lengths, *weights, self.hidden_activation)
        return outputs, RNNState(hidden)
