"""The plain recurrent network (Elman, 1990): the reference sequence, and the fused one."""

from torch import Tensor
from torch.nn.functional import linear

from seqmem.ops.activations import Activation, activation
from seqmem.ops.loop import hidden_loop
from seqmem.ops.memory_network import without_memory


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

    def step(projected: Tensor, state: Tensor) -> Tensor:
        return activation(hidden_activation)((projected + linear(state, weight_hh)).to(state.dtype))

    return hidden_loop(step, inputs, hidden, lengths, weight_hx, bias_h)


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
    return without_memory(inputs, hidden, lengths, weight_hx, weight_hh, bias_h, hidden_activation, gated=False)
