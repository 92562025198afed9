"""Gated recurrent unit (Cho et al., 2014)."""

from typing import Any, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import linear

from seqmem.arguments import checked
from seqmem.cells.base import Recurrence
from seqmem.ops import sequence


class GRUState(NamedTuple):
    """hidden: (B, H)."""

    hidden: Tensor


class GRU(Recurrence[GRUState]):
    """The equations, weight layout and initialisation of one layer of torch.nn.GRU.

    r, z = sigmoid(W x + b + U h + b'), n = tanh(W_n x + b_n + r (U_n h + b'_n)), h = (1 - z) n + z h; the rows of the weights
    hold r, z, n in this order. The reset gate acts after the product with U_n, or before it, as in Cho et al. (2014),
    equation 8: n = tanh(W_n x + b_n + U_n (r h) + b'_n).

    Args:
        input_size: C.
        hidden_size: H.
        bias: add a bias for the input and one for the hidden state.
        reset_after: where the reset gate acts. If before, the sequence goes step by step; layout and initialisation stay.

    Raises:
        UserError: an argument of the wrong type or range.
    """

    name = "gru"

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
        """All zero."""
        return GRUState(self.weight_hh.new_zeros(batch_size, self.output_size))

    def project(self, inputs: Tensor) -> Tensor:
        """W x + b of all three rows."""
        return linear(inputs, self.weight_ih, self.bias_ih)

    def schedule(self, state: GRUState, steps: int, fresh: bool) -> list[Any]:
        """What acts on h: U and b' of all rows, or of r and z and of n apart where r comes between; the same at each step."""
        if self.reset_after:
            return [(self.weight_hh, self.bias_hh)] * steps
        sizes = [2 * self.output_size, self.output_size]
        biases = (None, None) if self.bias_hh is None else self.bias_hh.split(sizes)
        return [tuple(zip(self.weight_hh.split(sizes), biases, strict=True))] * steps

    def advance(self, projected: Tensor, state: GRUState, tick: Any) -> tuple[Tensor, GRUState]:
        """One step."""
        sizes = [2 * self.output_size, self.output_size]
        x_gates, x_new = projected.split(sizes, -1)
        if self.reset_after:
            h_gates, h_new = linear(state.hidden, *tick).split(sizes, -1)
            r, z = torch.sigmoid(x_gates + h_gates).chunk(2, -1)
            new = torch.tanh(x_new + r * h_new)
        else:
            gates, candidate = tick
            r, z = torch.sigmoid(x_gates + linear(state.hidden, *gates)).chunk(2, -1)
            new = torch.tanh(x_new + linear(r * state.hidden, *candidate))
        hidden = new + z * (state.hidden - new)
        return hidden, GRUState(hidden)

    def fallback_reason(self, inputs: Tensor) -> str:
        """Why a sequence goes step by step; empty if it does not."""
        return sequence.fallback_reason(inputs) if self.reset_after else "the reset gate acts before the product"

    def fused_forward(self, inputs: Tensor, state: GRUState, lengths: Tensor | None, fresh: bool) -> tuple[Tensor, GRUState]:
        """All steps in one call."""
        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        outputs, hidden = sequence.gru_sequence(inputs, state.hidden, lengths, *weights)
        return outputs, GRUState(hidden)
