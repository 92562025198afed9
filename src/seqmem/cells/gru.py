"""Gated recurrent unit (Cho et al., 2014)."""

from typing import Any, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import linear

from seqmem.arguments import checked
from seqmem.cells.base import Recurrence
from seqmem.ops.gru import gru_step, gru_step_reset_before


class GRUState(NamedTuple):
    """State of a GRU: ``hidden`` (B, H)."""

    hidden: Tensor


class GRU(Recurrence[GRUState]):
    """One layer of torch.nn.GRU: the same equations, weight layout and initialisation::

        r, z = sigmoid(W x + b + U h + b')
        n = tanh(W_n x + b_n + r (U_n h + b'_n))
        h' = (1 - z) n + z h

    The rows of the weights hold r, z, n in this order. The reset gate acts after the product with U_n, or before it, as in Cho
    et al. (2014), equation 8: n = tanh(W_n x + b_n + U_n (r h) + b'_n).

    Args:
        input_size: C.
        hidden_size: H.
        bias: add a bias for the input and one for the hidden state.
        reset_after: the reset gate acts after the product with U_n; layout and initialisation are the same if it acts before.

    Raises:
        UserError: an argument of the wrong type or range.
    """

    name = "gru"
    operator = "gru"
    hidden_is_output = True

    @checked
    def __init__(self, input_size: PositiveInt, hidden_size: PositiveInt = 256, bias: bool = True, reset_after: bool = True):
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size
        self.reset_after = reset_after
        self.weight_ih = nn.Parameter(torch.empty(3 * hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(3 * hidden_size, hidden_size))
        self.bias_ih = nn.Parameter(torch.empty(3 * hidden_size)) if bias else None
        self.bias_hh = nn.Parameter(torch.empty(3 * hidden_size)) if bias else None
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden_size**-0.5), hidden_size**-0.5)

    def initial_state(self, batch_size: int) -> GRUState:
        """Return a zero hidden state."""
        return GRUState(self.weight_hh.new_zeros(batch_size, self.output_size))

    def project(self, inputs: Tensor) -> Tensor:
        """Compute W x + b of r, z and n."""
        return linear(inputs, self.weight_ih, self.bias_ih)

    def schedule(self, state: GRUState, steps: int, fresh: bool) -> list[Any]:
        """Return U and b', the same at each step: of all rows, or of r, z and of n if the reset gate acts before."""
        if self.reset_after:
            return [(self.weight_hh, self.bias_hh)] * steps
        sizes = [2 * self.output_size, self.output_size]
        biases = (None, None) if self.bias_hh is None else self.bias_hh.split(sizes)
        return [tuple(zip(self.weight_hh.split(sizes), biases, strict=True))] * steps

    def advance(self, projected: Tensor, state: GRUState, scheduled: Any) -> tuple[Tensor, GRUState]:
        """Compute one step."""
        step = gru_step if self.reset_after else gru_step_reset_before
        hidden = step(projected, state.hidden, *scheduled)
        return hidden, GRUState(hidden)

    def operator_options(self) -> dict[str, Any]:
        """Return where the reset gate acts."""
        return {"reset_after": self.reset_after}

    def fused_forward(
        self, run: Any, inputs: Tensor, state: GRUState, lengths: Tensor | None, fresh: bool
    ) -> tuple[Tensor, GRUState]:
        """Compute a whole sequence."""
        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        outputs, hidden = run(inputs, state.hidden, lengths, *weights, self.reset_after)
        return outputs, GRUState(hidden)
