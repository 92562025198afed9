"""GRU with a rectified candidate: the reference sequence, and one with a hand-written backward."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from seqmem.data.masks import masked, valid_steps
from seqmem.ops.export import exporting
from seqmem.ops.gru import gru_step_reset_before
from seqmem.ops.loop import run_steps, stacked


def relu_gru_reference(
    inputs: Tensor, hidden: Tensor, lengths: Tensor | None, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute a whole sequence step by step::

        r, u = sigmoid(W x + U h + b)
        n = relu(W_n x + U_n (r h) + b_n)
        h' = u h + (1 - u) n

    Args:
        inputs: (B, T, C).
        hidden: (B, H) before the first step.
        lengths: (B,) int64 valid steps of each row; None if all T are valid.
        weight_ih: W, (3H, C), rows r, u, n.
        weight_hh: U, (3H, H).
        bias: b, (3H,).

    Returns:
        outputs (B, T, H), zero in the padding, and the hidden state after each row's last valid step.
    """
    size = hidden.shape[1]
    projected = linear(masked(inputs, lengths).transpose(0, 1), weight_ih, bias)
    gates, candidate = weight_hh.split([2 * size, size])

    def step(item: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        after = gru_step_reset_before(item, state, (gates, None), (candidate, None), torch.relu)
        return after, after

    outputs, after = run_steps(step, projected.unbind(0), hidden, lengths, inputs.shape[1])
    return stacked(outputs, inputs, size), after


@torch.compiler.disable
def relu_gru_sequence(
    inputs: Tensor, hidden: Tensor, lengths: Tensor | None, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute :func:`relu_gru_reference` with a hand-written backward; differentiable once."""
    projected = linear(masked(inputs, lengths), weight_ih, bias).transpose(0, 1)
    outputs, after = _Sequence.apply(projected, hidden, weight_hh, lengths)
    return outputs.transpose(0, 1), after


def relu_gru_fallback_reason(inputs: Tensor) -> str:
    """Return why :func:`relu_gru_sequence` cannot run, or an empty string."""
    if exporting():
        return "an exported program has no backward"
    return "its hand-written backward does not support autocast" if torch.is_autocast_enabled("cpu") else ""


class _Sequence(torch.autograd.Function):
    """Map projected inputs (T, B, 3H) and h (B, H) to outputs (T, B, H) and the last h (B, H)."""

    @staticmethod
    def forward(ctx: Any, projected: Tensor, hidden: Tensor, weight: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        size = hidden.shape[1]
        weight_gates, weight_new = weight[: 2 * size].T, weight[2 * size :].T
        valid = None if lengths is None else valid_steps(lengths, len(projected)).T[..., None]
        before = projected.new_empty(len(projected), *hidden.shape)
        gates, news, outputs = projected[..., : 2 * size].clone(), projected[..., 2 * size :].clone(), torch.empty_like(before)
        for t in range(len(projected)):
            before[t] = hidden
            r, u = gates[t].addmm_(hidden, weight_gates).sigmoid_().chunk(2, -1)
            new = news[t].addmm_(r * hidden, weight_new).relu_()
            after = torch.lerp(new, hidden, u)
            hidden = after if valid is None else after.where(valid[t], hidden)
            outputs[t] = hidden
        ctx.save_for_backward(before, gates, news, weight, valid)
        return outputs if valid is None else outputs.where(valid, 0), hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Tensor, d_hidden: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        before, gates, news, weight, valid = ctx.saved_tensors
        size = before.shape[-1]
        weight_gates, weight_new = weight[: 2 * size], weight[2 * size :]
        d_projected = before.new_empty(*before.shape[:2], 3 * size)
        for t in reversed(range(len(before))):
            h, n, (r, u) = before[t], news[t], gates[t].chunk(2, -1)
            d = d_hidden + d_outputs[t]
            if valid is not None:
                kept, d = d_hidden.where(~valid[t], 0), d.where(valid[t], 0)
            d_new = d * (1 - u) * (n > 0)
            d_reset = d_new @ weight_new  # gradient of r h
            d_gates = torch.cat([d_reset * h * r * (1 - r), d * (h - n) * u * (1 - u)], -1)
            d_projected[t, :, : 2 * size], d_projected[t, :, 2 * size :] = d_gates, d_new
            d_hidden = d * u + d_reset * r + d_gates @ weight_gates
            if valid is not None:
                d_hidden = d_hidden + kept
        d_gates, d_new = d_projected.flatten(0, 1).split([2 * size, size], -1)
        reset = gates[..., :size] * before
        d_weight = torch.cat([d_gates.T @ before.flatten(0, 1), d_new.T @ reset.flatten(0, 1)])
        return d_projected, d_hidden, d_weight, None
