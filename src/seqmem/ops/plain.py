"""The plain recurrent network (Elman, 1990): the reference sequence, and the fused one."""

import torch
from torch import Tensor
from torch.nn.functional import linear

from seqmem.data.masks import masked
from seqmem.ops.activations import Activation, activation
from seqmem.ops.loop import run_steps, stacked
from seqmem.ops.memory_network import memory_network_sequence


def plain_reference(
    inputs: Tensor,
    hidden: Tensor,
    lengths: Tensor | None,
    weight_hx: Tensor,
    weight_hh: Tensor,
    bias_h: Tensor,
    hidden_activation: Activation,
) -> tuple[Tensor, Tensor]:
    """Compute h' = f(W_hx x + b_h + W_hh h) step by step.

    Arguments and results are those of :func:`plain_sequence`.
    """
    projected = linear(masked(inputs, lengths).transpose(0, 1), weight_hx, bias_h)

    def step(item: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        after = activation(hidden_activation)((item + linear(state, weight_hh)).to(state.dtype))
        return after, after

    outputs, after = run_steps(step, projected.unbind(0), hidden, lengths, inputs.shape[1])
    return stacked(outputs, inputs, hidden.shape[1]), after


def plain_sequence(
    inputs: Tensor,
    hidden: Tensor,
    lengths: Tensor | None,
    weight_hx: Tensor,
    weight_hh: Tensor,
    bias_h: Tensor,
    hidden_activation: Activation,
) -> tuple[Tensor, Tensor]:
    """Compute a whole sequence as that of a memory network without gate and memory weights.

    Args:
        inputs: (B, T, C).
        hidden: (B, H) before the first step.
        lengths: (B,) valid steps of each row; None if all T are valid.
        weight_hx: (H, C).
        weight_hh: (H, H).
        bias_h: (H,).
        hidden_activation: f.

    Returns:
        outputs (B, T, H), zero in the padding, and the hidden state after each row's last valid step.
    """
    outputs, hidden, _ = memory_network_sequence(
        inputs,
        hidden,
        hidden.new_zeros(inputs.shape[0], 1, 1),
        lengths,
        step=torch.zeros(1, 1, dtype=torch.float64),
        drive=torch.zeros(1, dtype=torch.float64),
        weight_hx=weight_hx,
        weight_hh=weight_hh,
        bias_h=bias_h,
        hidden_activation=hidden_activation,
        gated=False,
    )
    return outputs, hidden
