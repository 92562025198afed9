"""The gated recurrent unit of a widely used real-valued sequence-to-sequence autoencoder."""

from typing import Any, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import linear

from seqmem.arguments import checked
from seqmem.cells.base import Recurrence
from seqmem.ops.gru import gru_step_reset_before


class ReLUGRUState(NamedTuple):
    """State: ``hidden`` (B, H)."""

    hidden: Tensor


class ReLUGRU(Recurrence[ReLUGRUState]):
    """A GRU with rectified candidate, the reset gate before the product (Cho et al., 2014, equation 8)::

        r, u = sigmoid(W [x; h] + b)
        n = relu(W_n [x; r h] + b_n)
        h' = u h + (1 - u) n

    The rows of the weights hold r, u, n. Initial weights are Glorot-uniform, those of both gates as one matrix, and initial
    biases uniform on [-1, 1).

    Args:
        input_size: C.
        hidden_size: H.

    Raises:
        UserError: an argument of the wrong type or range.
    """

    name = "relu_gru"
    operator = "gru"
    hidden_is_output = True

    @checked
    def __init__(self, input_size: PositiveInt, hidden_size: PositiveInt = 256):
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size
        self.weight_ih = nn.Parameter(torch.empty(3 * hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(3 * hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.empty(3 * hidden_size))
        for weight in (self.weight_ih, self.weight_hh):
            for rows in weight.split([2 * hidden_size, hidden_size]):
                bound = (6 / (input_size + hidden_size + len(rows))) ** 0.5
                nn.init.uniform_(rows, -bound, bound)
        nn.init.uniform_(self.bias, -1, 1)

    def initial_state(self, batch_size: int) -> ReLUGRUState:
        """Return a zero hidden state."""
        return ReLUGRUState(self.weight_hh.new_zeros(batch_size, self.output_size))

    def project(self, inputs: Tensor) -> Tensor:
        """Compute W x + b of r, u and n."""
        return linear(inputs, self.weight_ih, self.bias)

    def schedule(self, state: ReLUGRUState, steps: int, fresh: bool) -> list[Any]:
        """Return the weights of h, the same at each step: those of r and u, and those of n."""
        gates, candidate = self.weight_hh.split([2 * self.output_size, self.output_size])
        return [((gates, None), (candidate, None))] * steps

    def advance(self, projected: Tensor, state: ReLUGRUState, scheduled: Any) -> tuple[Tensor, ReLUGRUState]:
        """Compute one step."""
        gates, candidate = scheduled
        hidden = gru_step_reset_before(projected, state.hidden, gates, candidate, "relu")
        return hidden, ReLUGRUState(hidden)

    def operator_options(self) -> dict[str, Any]:
        """Return where the reset gate acts, and the activation."""
        return {"reset_after": False, "hidden_activation": "relu"}

    def fused_forward(
        self, run: Any, inputs: Tensor, state: ReLUGRUState, lengths: Tensor | None, fresh: bool
    ) -> tuple[Tensor, ReLUGRUState]:
        """Compute a whole sequence."""
        weights = (self.weight_ih, self.weight_hh, self.bias, torch.zeros_like(self.bias))
        outputs, hidden = run(inputs, state.hidden, lengths, *weights, *self.operator_options().values())
        return outputs, ReLUGRUState(hidden)
