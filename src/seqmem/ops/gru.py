"""Gated recurrent unit: one step, the reference sequence, and the fused one."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from seqmem.ops.activations import Activation, activation
from seqmem.ops.compiled_sequence import chunk_steps, padded_size, products_in_half, register_sequence
from seqmem.ops.loop import hidden_loop


def gru_step(
    projected: Tensor, hidden: Tensor, weight_hh: Tensor, bias_hh: Tensor | None, hidden_activation: Activation = "tanh"
) -> Tensor:
    """Compute one step with the reset gate after the product (as torch.nn.GRU)::

        r, z = sigmoid(W x + b + U h + b')
        n = f(W_n x + b_n + r (U_n h + b'_n))
        h' = (1 - z) n + z h

    Args:
        projected: W x + b, (B, 3H), rows r, z, n.
        hidden: h, (B, H).
        weight_hh: U, (3H, H).
        bias_hh: b', (3H,), or None.
        hidden_activation: f.

    Returns:
        h', (B, H).
    """
    sizes = [2 * hidden.shape[1], hidden.shape[1]]
    x_gates, x_new = projected.split(sizes, -1)
    h_gates, h_new = linear(hidden, weight_hh, bias_hh).split(sizes, -1)
    r, z = torch.sigmoid(x_gates + h_gates).chunk(2, -1)
    new = activation(hidden_activation)(x_new + r * h_new)
    return new + z * (hidden - new)


def gru_step_reset_before(
    projected: Tensor,
    hidden: Tensor,
    gates: tuple[Tensor, Tensor | None],
    candidate: tuple[Tensor, Tensor | None],
    hidden_activation: Activation = "tanh",
) -> Tensor:
    """Compute one step with the reset gate before the product (Cho et al., 2014, equation 8).

    n = f(W_n x + b_n + U_n (r h) + b'_n); r, z and h' are those of :func:`gru_step`.

    Args:
        projected: W x + b, (B, 3H), rows r, z, n.
        hidden: h, (B, H).
        gates: U (2H, H) and b' (2H,) or None, rows r, z.
        candidate: U_n (H, H) and b'_n (H,) or None.
        hidden_activation: f.

    Returns:
        h', (B, H).
    """
    x_gates, x_new = projected.split([2 * hidden.shape[1], hidden.shape[1]], -1)
    r, z = torch.sigmoid(x_gates + linear(hidden, *gates)).chunk(2, -1)
    new = activation(hidden_activation)(x_new + linear(r * hidden, *candidate))
    return new + z * (hidden - new)


def gru_reference(
    inputs: Tensor,
    hidden: Tensor,
    lengths: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    reset_after: bool = True,
    hidden_activation: Activation = "tanh",
) -> tuple[Tensor, Tensor]:
    """Compute a whole sequence by :func:`gru_step` or :func:`gru_step_reset_before`.

    Arguments and results are those of :func:`gru_sequence`.
    """
    sizes = [2 * hidden.shape[1], hidden.shape[1]]
    gates, candidate = zip(weight_hh.split(sizes), (None, None) if bias_hh is None else bias_hh.split(sizes), strict=True)

    def step(projected: Tensor, state: Tensor) -> Tensor:
        if reset_after:
            return gru_step(projected, state, weight_hh, bias_hh, hidden_activation)
        return gru_step_reset_before(projected, state, gates, candidate, hidden_activation)

    return hidden_loop(step, inputs, hidden, lengths, weight_ih, bias_ih)


def gru_sequence(
    inputs: Tensor,
    hidden: Tensor,
    lengths: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    reset_after: bool = True,
    hidden_activation: Activation = "tanh",
) -> tuple[Tensor, Tensor]:
    """Compute one layer of a GRU over a whole sequence, in ``csrc/sequence_run.cpp``.

    Args:
        inputs: (B, T, C) in the type of all other tensors, float32 or float64; under autocast also bfloat16.
        hidden: (B, H) before the first step.
        lengths: (B,) int64 valid steps of each row; None if all T are valid.
        weight_ih: (3H, C), rows r, z, n.
        weight_hh: (3H, H).
        bias_ih: (3H,), or None for no bias.
        bias_hh: (3H,), or None for no bias.
        reset_after: the reset gate acts after the product with U_n, as in torch.nn.GRU; else before it.
        hidden_activation: of n.

    Returns:
        outputs (B, T, H), zero in the padding, and the hidden state after each row's last valid step. Differentiable once.

    Raises:
        ValueError: shapes or types that do not match, or an unknown activation.
    """
    inputs = inputs.to(hidden.dtype)
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    steps = chunk_steps(inputs, hidden, *weights)
    outputs, hidden, _ = torch.ops.seqmem.gru_sequence(
        inputs, hidden, lengths, *weights, reset_after, hidden_activation, products_in_half(hidden), steps
    )
    return outputs, hidden


def _shapes(inputs: Tensor, hidden: Tensor, *others: Any) -> tuple[Tensor, ...]:
    *_, reset_after, _, _, steps_of_chunk = others
    batch, steps = inputs.shape[:2]
    return (
        inputs.new_empty(batch, steps, hidden.shape[1]),
        hidden.new_empty(hidden.shape),
        inputs.new_empty(steps if steps_of_chunk > 0 else 0, batch, 4 if reset_after else 3, padded_size(hidden)),
    )


register_sequence("gru_sequence", 1, _shapes)
