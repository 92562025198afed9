"""Minimal gated unit: a GRU without reset gate."""

from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import linear

from seqmem.arguments import checked
from seqmem.cells.base import Recurrence
from seqmem.cells.initializers import Initializer, initialize, initialize_bias
from seqmem.cells.rnn import RNNState
from seqmem.ops.activations import Activation
from seqmem.ops.gated import candidate_and_gate


class MGU(Recurrence[RNNState]):
    """The gated cell of HiPPO's code in its default setting, where it is called gru::

        c = f(W_hx x + b_hx + W_hh h + b_hh)
        g = sigmoid(W_gx x + W_gh h + b_g)
        h' = (1 - g) h + g c

    The unit of Zhou et al. (2016) also applies the gate within the candidate, to W_hh (g h).

    Parameters: ``weight_hx`` (2H, C), ``weight_hh`` (2H, H) and ``bias_hx`` (2H,) hold the rows of the candidate, then those of
    the gate; ``bias_hh`` (H,).

    Args:
        input_size: C.
        hidden_size: H.
        hidden_activation: f, the activation.
        hx_initializer: initialiser of W_hx (H, C). The gate's weights are normal with variance 1 / (C + H).
        hh_initializer: initialiser of W_hh (H, H).
        zero_bias_init: start b_hx at zero instead of uniform within 1 / sqrt(C).

    Raises:
        UserError: an argument of the wrong type or range.
    """

    name = "mgu"
    operator = "gated"
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
        self.weight_hx = nn.Parameter(torch.empty(2 * hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(2 * hidden_size, hidden_size))
        self.bias_hx = nn.Parameter(torch.zeros(2 * hidden_size))
        self.bias_hh = nn.Parameter(torch.empty(hidden_size))
        with torch.no_grad():
            initialize(self.weight_hx[:hidden_size], hx_initializer)
            initialize(self.weight_hh[:hidden_size], hh_initializer)
            initialize_gate(self.weight_hx[hidden_size:], self.weight_hh[hidden_size:], self.bias_hx[hidden_size:])
            if not zero_bias_init:
                initialize_bias(self.bias_hx[:hidden_size], input_size)
            initialize_bias(self.bias_hh, hidden_size)

    def initial_state(self, batch_size: int) -> RNNState:
        """Return a zero hidden state."""
        return RNNState(self.weight_hh.new_zeros(batch_size, self.output_size))

    def project(self, inputs: Tensor) -> Tensor:
        """Compute the terms of candidate and gate in x, all biases included: (..., C) -> (..., 2H)."""
        return linear(inputs, self.weight_hx, self._bias())

    def advance(self, projected: Tensor, state: RNNState, scheduled: None) -> tuple[Tensor, RNNState]:
        """Compute one step."""
        hidden = torch.lerp(state.hidden, *self.candidate_and_gate(projected, state.hidden))
        return hidden, RNNState(hidden)

    def candidate_and_gate(self, projected: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Compute c and g, (B, H) each, in the precision of the hidden state."""
        return candidate_and_gate(projected, hidden, self.weight_hh, self.hidden_activation)

    def fused_forward(
        self, run: Any, inputs: Tensor, state: RNNState, lengths: Tensor | None, fresh: bool
    ) -> tuple[Tensor, RNNState]:
        """Compute a whole sequence."""
        weights = (self.weight_hx, self.weight_hh, self._bias())
        outputs, hidden = run(inputs, state.hidden, lengths, *weights, self.hidden_activation)
        return outputs, RNNState(hidden)

    def _bias(self) -> Tensor:
        return torch.cat([self.bias_hx[: self.output_size] + self.bias_hh, self.bias_hx[self.output_size :]])


def initialize_gate(from_input: Tensor, from_hidden: Tensor, bias: Tensor) -> None:
    """Initialise a gate's weights (H, C) and (H, H) in place, as one matrix, and its bias (H,)."""
    joint = torch.empty(len(bias), from_input.shape[1] + from_hidden.shape[1])
    initialize(joint, "kaiming_normal")
    from_input.copy_(joint[:, : from_input.shape[1]])
    from_hidden.copy_(joint[:, from_input.shape[1] :])
    initialize_bias(bias, joint.shape[1])
