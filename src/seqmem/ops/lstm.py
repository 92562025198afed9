"""Long short-term memory: one step, the reference sequence, and the fused one."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from seqmem.data.masks import masked
from seqmem.ops.compiled_sequence import chunk_steps, padded_size, products_in_half, register_sequence
from seqmem.ops.loop import run_steps, stacked


def lstm_step(projected: Tensor, hidden: Tensor, memory: Tensor, weight_hh: Tensor) -> tuple[Tensor, Tensor]:
    """Compute one step::

        i, f, o = sigmoid(W x + U h + b)
        g = tanh(W x + U h + b)
        c' = f c + i g
        h' = o tanh(c')

    Args:
        projected: W x + b, (B, 4H), rows i, f, g, o.
        hidden: h, (B, H).
        memory: c, (B, H).
        weight_hh: U, (4H, H).

    Returns:
        h' and c', (B, H) each.
    """
    i, f, g, o = (projected + linear(hidden, weight_hh)).chunk(4, -1)
    memory = torch.sigmoid(f) * memory + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(memory), memory


def lstm_projection(inputs: Tensor, weight_ih: Tensor, bias_ih: Tensor | None, bias_hh: Tensor | None) -> Tensor:
    """Compute W x + b of all four gates: (..., C) -> (..., 4H)."""
    return linear(inputs, weight_ih, None if bias_ih is None or bias_hh is None else bias_ih + bias_hh)


def lstm_reference(
    inputs: Tensor,
    hidden: Tensor,
    memory: Tensor,
    lengths: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute a whole sequence by :func:`lstm_step`.

    Arguments and results are those of :func:`lstm_sequence`.
    """
    projected = lstm_projection(masked(inputs, lengths).transpose(0, 1), weight_ih, bias_ih, bias_hh)

    def step(item: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        after = lstm_step(item, *state, weight_hh)
        return after[0], after

    outputs, after = run_steps(step, projected.unbind(0), (hidden, memory), lengths, inputs.shape[1])
    return stacked(outputs, inputs, hidden.shape[1]), *after


def lstm_sequence(
    inputs: Tensor,
    hidden: Tensor,
    memory: Tensor,
    lengths: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute one layer of torch.nn.LSTM over a whole sequence, in ``csrc/sequence_run.cpp``.

    Args:
        inputs: (B, T, C) in the type of all other tensors, float32 or float64; under autocast also bfloat16.
        hidden: (B, H) before the first step.
        memory: (B, H) cell state before the first step.
        lengths: (B,) int64 valid steps of each row; None if all T are valid.
        weight_ih: (4H, C), rows i, f, g, o.
        weight_hh: (4H, H).
        bias_ih: (4H,), or None for no bias.
        bias_hh: (4H,), or None for no bias.

    Returns:
        outputs (B, T, H), zero in the padding, and hidden and cell state after each row's last valid step. Differentiable once.

    Raises:
        ValueError: shapes or types that do not match.
    """
    inputs = inputs.to(hidden.dtype)
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    steps = chunk_steps(inputs, hidden, memory, *weights)
    outputs, hidden, memory, _ = torch.ops.seqmem.lstm_sequence(
        inputs, hidden, memory, lengths, *weights, products_in_half(hidden), steps
    )
    return outputs, hidden, memory


def _shapes(inputs: Tensor, hidden: Tensor, memory: Tensor, *others: Any) -> tuple[Tensor, ...]:
    batch, steps = inputs.shape[:2]
    return (
        inputs.new_empty(batch, steps, hidden.shape[1]),
        hidden.new_empty(hidden.shape),
        memory.new_empty(memory.shape),
        inputs.new_empty(steps if others[-1] > 0 else 0, batch, 5, padded_size(hidden)),
    )


register_sequence("lstm_sequence", 2, _shapes)
