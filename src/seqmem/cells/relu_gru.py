"""The gated recurrent unit of a widely used real-valued sequence-to-sequence autoencoder."""

from typing import Any, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from seqmem.arguments import checked
from seqmem.cells.base import Recurrence
from seqmem.data.masks import masked


class ReLUGRUState(NamedTuple):
    """hidden: (B, H)."""

    hidden: Tensor


class ReLUGRU(Recurrence[ReLUGRUState]):
    """A GRU whose candidate is rectified, with the reset gate before the product, as in Cho et al. (2014), equation 8.

    r, u = sigmoid(W [x; h] + b), n = relu(W_n [x; r h] + b_n), h = u h + (1 - u) n; the rows of the weights hold r, u, n.
    Weights start Glorot-uniform, those of both gates as one matrix, and biases uniform on [-1, 1).

    Args:
        input_size: C.
        hidden_size: H.

    Raises:
        UserError: an argument of the wrong type or range.
    """

    name = "relu_gru"

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
        """All zero."""
        return ReLUGRUState(self.weight_hh.new_zeros(batch_size, self.output_size))

    def project(self, inputs: Tensor) -> Tensor:
        """W x + b of all three rows."""
        return linear(inputs, self.weight_ih, self.bias)

    def schedule(self, state: ReLUGRUState, steps: int, fresh: bool) -> list[tuple[Tensor, ...]]:
        """What acts on h, the same at each step: the rows of r and u, and those of n."""
        return [self.weight_hh.split([2 * self.output_size, self.output_size])] * steps

    def advance(self, projected: Tensor, state: ReLUGRUState, tick: tuple[Tensor, ...]) -> tuple[Tensor, ReLUGRUState]:
        """One step."""
        gates, candidate = tick
        x_gates, x_new = projected.split([2 * self.output_size, self.output_size], -1)
        r, u = torch.sigmoid(x_gates + linear(state.hidden, gates)).chunk(2, -1)
        new = torch.relu(x_new + linear(r * state.hidden, candidate))
        hidden = new + u * (state.hidden - new)
        return hidden, ReLUGRUState(hidden)

    def fallback_reason(self, inputs: Tensor) -> str:
        """Why a sequence goes back step by step through what autograd noted; empty if it does not."""
        if torch.compiler.is_exporting():
            return "an exported program has no way back"
        if not inputs.is_cpu:
            return f"its own way back is for the CPU, the inputs are on {inputs.device}"
        return "its own way back knows no autocast" if torch.is_autocast_enabled("cpu") else ""

    @torch.compiler.disable
    def fused_forward(
        self, inputs: Tensor, state: ReLUGRUState, lengths: Tensor | None, fresh: bool
    ) -> tuple[Tensor, ReLUGRUState]:
        """All steps, with a gradient that is written out."""
        self.path = "step by step, with its own way back"
        outputs, hidden = _Sequence.apply(
            self.project(masked(inputs, lengths)).transpose(0, 1), state.hidden, self.weight_hh, lengths
        )
        return outputs.transpose(0, 1), ReLUGRUState(hidden)


class _Sequence(torch.autograd.Function):
    """Projected inputs (T, B, 3H) and h (B, H) -> outputs (T, B, H) and the last h (B, H)."""

    @staticmethod
    def forward(ctx: Any, projected: Tensor, hidden: Tensor, weight: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        size = hidden.shape[1]
        into_gates, into_new = weight[: 2 * size].T, weight[2 * size :].T
        steps = torch.arange(len(projected), device=projected.device)
        valid = None if lengths is None else (steps[:, None] < lengths)[..., None]
        before = projected.new_empty(len(projected), *hidden.shape)
        gates, news, outputs = projected[..., : 2 * size].clone(), projected[..., 2 * size :].clone(), torch.empty_like(before)
        for t in range(len(projected)):
            before[t] = hidden
            r, u = gates[t].addmm_(hidden, into_gates).sigmoid_().chunk(2, -1)
            new = news[t].addmm_(r * hidden, into_new).relu_()
            following = torch.lerp(new, hidden, u)
            hidden = following if valid is None else following.where(valid[t], hidden)
            outputs[t] = hidden
        ctx.save_for_backward(before, gates, news, weight, valid)
        return outputs if valid is None else outputs.where(valid, 0), hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Tensor, d_hidden: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        before, gates, news, weight, valid = ctx.saved_tensors
        size = before.shape[-1]
        from_gates, from_new = weight[: 2 * size], weight[2 * size :]
        d_projected = before.new_empty(*before.shape[:2], 3 * size)
        for t in reversed(range(len(before))):
            h, n, (r, u) = before[t], news[t], gates[t].chunk(2, -1)
            d = d_hidden + d_outputs[t]
            if valid is not None:
                kept, d = d_hidden.where(~valid[t], 0), d.where(valid[t], 0)
            d_new = d * (1 - u) * (n > 0)
            d_reset = d_new @ from_new  # of r h
            d_gates = torch.cat([d_reset * h * r * (1 - r), d * (h - n) * u * (1 - u)], -1)
            d_projected[t, :, : 2 * size], d_projected[t, :, 2 * size :] = d_gates, d_new
            d_hidden = d * u + d_reset * r + d_gates @ from_gates
            if valid is not None:
                d_hidden = d_hidden + kept
        d_gates, d_new = d_projected.flatten(0, 1).split([2 * size, size], -1)
        reset = gates[..., :size] * before
        d_weight = torch.cat([d_gates.T @ before.flatten(0, 1), d_new.T @ reset.flatten(0, 1)])
        return d_projected, d_hidden, d_weight, None
