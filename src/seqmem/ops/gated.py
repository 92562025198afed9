"""Gated cells without reset gate (MGU, the minimal RNN): one step, the reference sequence, and the fused one."""

import torch
from torch import Tensor
from torch.nn.functional import linear

from seqmem.ops.activations import Activation, activation
from seqmem.ops.loop import hidden_loop
from seqmem.ops.memory_network import without_memory


def candidate_and_gate(
    projected: Tensor, hidden: Tensor, weight_hh: Tensor, hidden_activation: Activation
) -> tuple[Tensor, Tensor]:
    """Compute c = f(W_hx x + b + W_hh h) and g = sigmoid(W_gx x + b + W_gh h).

    Args:
        projected: all terms in x and the biases, (B, 2H), rows of the candidate, then of the gate.
        hidden: h, (B, H).
        weight_hh: (2H, H).
        hidden_activation: f.

    Returns:
        c and g, (B, H) each, in the hidden state's precision.
    """
    candidate, gate = (projected + linear(hidden, weight_hh)).to(hidden.dtype).chunk(2, -1)
    return activation(hidden_activation)(candidate), torch.sigmoid(gate)


def gated_reference(
    inputs: Tensor,
    hidden: Tensor,
    lengths: Tensor | None,
    weight_hx: Tensor,
    weight_hh: Tensor,
    bias_h: Tensor,
    hidden_activation: Activation,
) -> tuple[Tensor, Tensor]:
    """Compute h' = (1 - g) h + g c step by step.

    Arguments and results are those of :func:`gated_sequence`.
    """

    def step(projected: Tensor, state: Tensor) -> Tensor:
        return torch.lerp(state, *candidate_and_gate(projected, state, weight_hh, hidden_activation))

    return hidden_loop(step, inputs, hidden, lengths, weight_hx, bias_h)


def gated_sequence(
    inputs: Tensor,
    hidden: Tensor,
    lengths: Tensor | None,
    weight_hx: Tensor,
    weight_hh: Tensor,
    bias_h: Tensor,
    hidden_activation: Activation,
) -> tuple[Tensor, Tensor]:
    """Compute a whole sequence as that of a memory network without memory weights.

    Args:
        inputs: (B, T, C).
        hidden: (B, H) before the first step.
        lengths: (B,) valid steps of each row; None if all T are valid.
        weight_hx: (2H, C), rows of the candidate, then of the gate.
        weight_hh: (2H, H).
        bias_h: (2H,).
        hidden_activation: of the candidate.

    Returns:
        outputs (B, T, H), zero in the padding, and the hidden state after each row's last valid step.
    """
    return without_memory(inputs, hidden, lengths, weight_hx, weight_hh, bias_h, hidden_activation, gated=True)
