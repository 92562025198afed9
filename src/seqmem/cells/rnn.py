"""The plain recurrent network (Elman, 1990)."""

from typing import Any, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import linear

from seqmem.arguments import checked
from seqmem.cells.base import Recurrence
from seqmem.cells.initializers import Initializer, initialize, initialize_bias
from seqmem.ops.activations import Activation, activation


class RNNState(NamedTuple):
    """State: ``hidden`` (B, H)."""

    hidden: Tensor


class RNN(Recurrence[RNNState]):
    """The plain recurrent network h_t = f(W_hx x_t + b_hx + W_hh h_{t-1} + b_hh).

    Args:
        input_size: C.
        hidden_size: H.
        hidden_activation: f, the activation.
        hx_initializer: initialiser of W_hx (H, C).
        hh_initializer: initialiser of W_hh (H, H).
        zero_bias_init: start b_hx at zero instead of uniform within 1 / sqrt(C).

    Raises:
        UserError: an argument of the wrong type or range.
    """

    name = "rnn"
    operator = "plain"
    hidden_is_output = True

    @checked
    def __init__(
        self,
        input_size: PositiveInt,
        hidden_size: PositiveInt = 256,
        hidden_activation: Activation = "tanh",
        hx_initializer: Initializer = "xavier_normal",
        hh_initializer: Initializer = "xavier_normal",
        zero_bias_init: bool = False,
    ):
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size
        self.hidden_activation = hidden_activation
        self.weight_hx = nn.Parameter(torch.empty(hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(hidden_size, hidden_size))
        self.bias_hx = nn.Parameter(torch.zeros(hidden_size))
        self.bias_hh = nn.Parameter(torch.empty(hidden_size))
        initialize(self.weight_hx, hx_initializer)
        initialize(self.weight_hh, hh_initializer)
        if not zero_bias_init:
            initialize_bias(self.bias_hx, input_size)
        initialize_bias(self.bias_hh, hidden_size)

    def initial_state(self, batch_size: int) -> RNNState:
        """Return a zero hidden state."""
        return RNNState(self.weight_hh.new_zeros(batch_size, self.output_size))

    def project(self, inputs: Tensor) -> Tensor:
        """Compute W_hx x + b_hx + b_hh."""
        return linear(inputs, self.weight_hx, self.bias_hx + self.bias_hh)

    def advance(self, projected: Tensor, state: RNNState, scheduled: None) -> tuple[Tensor, RNNState]:
        """Compute one step."""
        summed = (projected + linear(state.hidden, self.weight_hh)).to(state.hidden.dtype)
        hidden = activation(self.hidden_activation)(summed)
        return hidden, RNNState(hidden)

    def operator_options(self) -> dict[str, Any]:
        """Return the settings that an implementation may not support."""
        return {"hidden_activation": self.hidden_activation}

    def fused_forward(
        self, run: Any, inputs: Tensor, state: RNNState, lengths: Tensor | None, fresh: bool
    ) -> tuple[Tensor, RNNState]:
        """Compute a whole sequence."""
        weights = (self.weight_hx, self.weight_hh, self.bias_hx + self.bias_hh)
        outputs, hidden = run(inputs, state.hidden, lengths, *weights, self.hidden_activation)
        return outputs, RNNState(hidden)
