"""The recurrent network with modReLU, whose matrix is orthogonal in ExpRNN: the reference sequence, and the fused one."""

import torch
from torch import Tensor
from torch.nn.functional import linear

from seqmem.ops.activations import modrelu
from seqmem.ops.compiled_sequence import chunk_steps, padded_size, register_sequence
from seqmem.ops.loop import hidden_loop


def modrelu_reference(
    inputs: Tensor,
    hidden: Tensor,
    lengths: Tensor | None,
    weight_hx: Tensor,
    weight_hh: Tensor,
    bias_hx: Tensor | None,
    bias_modrelu: Tensor,
) -> tuple[Tensor, Tensor]:
    """Compute h' = sign(z) max(|z| + b, 0) with z = W_hx x + b_hx + W_hh h, step by step.

    Arguments and results are those of :func:`modrelu_sequence`.
    """

    def step(projected: Tensor, state: Tensor) -> Tensor:
        return modrelu(projected + linear(state, weight_hh), bias_modrelu)

    return hidden_loop(step, inputs, hidden, lengths, weight_hx, bias_hx)


def modrelu_sequence(
    inputs: Tensor,
    hidden: Tensor,
    lengths: Tensor | None,
    weight_hx: Tensor,
    weight_hh: Tensor,
    bias_hx: Tensor | None,
    bias_modrelu: Tensor,
) -> tuple[Tensor, Tensor]:
    """Compute a whole sequence, in ``csrc/sequence_run.cpp``. Its products keep their precision under autocast.

    Args:
        inputs: (B, T, C), float32 or float64; under autocast also bfloat16.
        hidden: (B, H) before the first step, in the type of all weights.
        lengths: (B,) int64 valid steps of each row; None if all T are valid.
        weight_hx: (H, C).
        weight_hh: (H, H).
        bias_hx: (H,), or None for no bias.
        bias_modrelu: b, (H,).

    Returns:
        outputs (B, T, H), zero in the padding, and the hidden state after each row's last valid step. Differentiable once.

    Raises:
        ValueError: shapes or types that do not match.
    """
    inputs = inputs.to(hidden.dtype)
    weights = (weight_hx, weight_hh, bias_hx, bias_modrelu)
    steps = chunk_steps(inputs, hidden, *weights)
    outputs, hidden, _ = torch.ops.seqmem.modrelu_sequence(inputs, hidden, lengths, *weights, steps)
    return outputs, hidden


def _shapes(
    inputs: Tensor,
    hidden: Tensor,
    lengths: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_modrelu: Tensor,
    steps_of_chunk: int,
) -> tuple[Tensor, ...]:
    batch, steps = inputs.shape[:2]
    return (
        inputs.new_empty(batch, steps, hidden.shape[1]),
        hidden.new_empty(hidden.shape),
        inputs.new_empty(steps if steps_of_chunk > 0 else 0, batch, 1, padded_size(hidden)),
    )


register_sequence("modrelu_sequence", 1, _shapes)
