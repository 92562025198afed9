"""LSTM, GRU and the plain network by torch's recurrent functions, which call cuDNN for CUDA tensors.

Lengths stay on the device: packed sequences need them on the CPU, which waits for the device. Padded steps are computed too,
with inputs of zero, and have no influence on results and gradients. The functions run on any device.
"""

from typing import Any

import torch
from torch import Tensor

from seqmem.data.masks import masked, valid_steps
from seqmem.ops import extension
from seqmem.ops.activations import Activation
from seqmem.ops.constants import on_device
from seqmem.ops.export import exporting
from seqmem.ops.gru import gru_reference
from seqmem.ops.lstm import lstm_reference
from seqmem.ops.plain import plain_reference
from seqmem.ops.precision import autocast_active, full_precision
from seqmem.ops.states import select

_CLOSED = 1000.0
"""Added to the gates' inputs in the padding: a sigmoid of it is exactly 0 or 1 in every floating-point type."""

_CUDNN_MODES = {"rnn_tanh": 1, "lstm": 2, "gru": 3}
_GATES = {"rnn_tanh": 1, "lstm": 4, "gru": 3}


def fallback_reason(inputs: Tensor) -> str:
    """Return why cuDNN cannot compute inputs (B, T, C), or an empty string.

    Args:
        inputs: in the type of the weights.
    """
    if extension.FORCED:
        return extension.REASON
    if exporting():
        return "an exported program has no cuDNN call"
    return ""


def gru_fallback_reason(inputs: Tensor, reset_after: bool = True, hidden_activation: Activation = "tanh") -> str:
    """Return why cuDNN cannot compute the GRU of inputs (B, T, C), or an empty string.

    Args:
        inputs: in the type of the weights.
        reset_after: of :func:`seqmem.ops.gru.gru_sequence`, as the next.
        hidden_activation: of the candidate.
    """
    if not reset_after:
        return fallback_reason(inputs) or "cuDNN has no GRU with the reset gate before the product"
    known = hidden_activation == "tanh"
    return fallback_reason(inputs) or ("" if known else f"the GRU of cuDNN has tanh, not '{hidden_activation}'")


def plain_fallback_reason(inputs: Tensor, hidden_activation: Activation = "tanh") -> str:
    """Return why cuDNN cannot compute the plain network of inputs (B, T, C), or an empty string.

    cuDNN also has the ReLU, whose state may overflow in the padding.

    Args:
        inputs: in the type of the weights.
        hidden_activation: of :func:`seqmem.ops.plain.plain_sequence`.
    """
    known = hidden_activation == "tanh"
    return fallback_reason(inputs) or ("" if known else f"the cuDNN call of plain networks has tanh, not '{hidden_activation}'")


@torch.compiler.disable  # torch would trace it into single steps
def lstm_cudnn(
    inputs: Tensor,
    hidden: Tensor,
    memory: Tensor,
    lengths: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute a whole sequence; differentiable once.

    An additional input, 1 in the padding, opens the forget gate and closes the input gate: the cell state after the last step
    is that after the last valid one. Under autocast products and states are in half precision. Arguments and results are those
    of :func:`seqmem.ops.lstm.lstm_sequence`.
    """
    if 0 in inputs.shape[:2]:
        return lstm_reference(inputs, hidden, memory, lengths, weight_ih, weight_hh, bias_ih, bias_hh)
    inputs = masked(inputs, lengths).to(hidden.dtype)
    if lengths is not None:
        padding = ~valid_steps(lengths, inputs.shape[1])
        inputs = torch.cat([inputs, padding[..., None].to(inputs.dtype)], -1)
        weight_ih = torch.cat([weight_ih, _keeping_gates(weight_ih, hidden.shape[1])], 1)
    outputs, last, after = _run("lstm", inputs, [hidden, memory], [weight_ih, weight_hh, bias_ih, bias_hh])
    if lengths is not None:
        last = _last_valid(outputs, hidden, lengths)
    return masked(outputs, lengths), last, after


@torch.compiler.disable
def gru_cudnn(
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
    """Compute a whole sequence; differentiable once.

    Under autocast products and states are in half precision. Arguments and results are those of
    :func:`seqmem.ops.gru.gru_sequence`; ``reset_after`` is true, and the activation is "tanh".
    """
    if 0 in inputs.shape[:2]:
        return gru_reference(inputs, hidden, lengths, weight_ih, weight_hh, bias_ih, bias_hh)
    inputs = masked(inputs, lengths).to(hidden.dtype)
    outputs, last = _run("gru", inputs, [hidden], [weight_ih, weight_hh, bias_ih, bias_hh])
    if lengths is not None:
        last = _last_valid(outputs, hidden, lengths)
    return masked(outputs, lengths), last


@torch.compiler.disable
def plain_cudnn(
    inputs: Tensor,
    hidden: Tensor,
    lengths: Tensor | None,
    weight_hx: Tensor,
    weight_hh: Tensor,
    bias_h: Tensor,
    hidden_activation: Activation,
) -> tuple[Tensor, Tensor]:
    """Compute a whole sequence; differentiable once.

    Under autocast products and states are in half precision. Arguments and results are those of
    :func:`seqmem.ops.plain.plain_sequence`; the activation is "tanh".
    """
    if 0 in inputs.shape[:2]:
        return plain_reference(inputs, hidden, lengths, weight_hx, weight_hh, bias_h, hidden_activation)
    inputs = masked(inputs, lengths).to(hidden.dtype)
    outputs, last = _run("rnn_tanh", inputs, [hidden], [weight_hx, weight_hh, bias_h, None])
    if lengths is not None:
        last = _last_valid(outputs, hidden, lengths)
    return masked(outputs, lengths), last


@on_device
def _keeping_gates(size: int) -> Tensor:
    """Return the weights (4H, 1) of the additional input, rows i, f, g, o: the input gate closes, the forget gate opens."""
    return torch.tensor([-_CLOSED, _CLOSED, 0, 0], dtype=torch.float64).repeat_interleave(size)[:, None]


def _run(name: str, inputs: Tensor, states: list[Tensor], weights: list[Tensor | None]) -> list[Tensor]:
    """Return outputs (B, T, H) and the states (B, H) after T steps, in the type of the states before."""
    kept = states[0].dtype
    dtype = _product_type(inputs)
    bias = inputs.new_zeros(_GATES[name] * states[0].shape[1])  # cuDNN always adds one
    with full_precision(inputs.device):
        flat = _flattened([(bias if weight is None else weight).to(dtype) for weight in weights])
        before = [state.to(dtype)[None].contiguous() for state in states]
        training = torch.is_grad_enabled()  # cuDNN keeps what backward needs in training only
        if hasattr(inputs, "fake_mode"):
            outputs, *after = _fake(name, inputs.to(dtype), before, flat, training)
        else:
            function: Any = getattr(torch._VF, name)
            given = before if name == "lstm" else before[0]
            outputs, *after = function(inputs.to(dtype), given, flat, True, 1, 0.0, training, False, True)
        return [outputs.to(kept), *(state[0].to(kept) for state in after)]


def _flattened(weights: list[Tensor]) -> list[Tensor]:
    """Return the weights as parts of one tensor in cuDNN's order: cuDNN would copy them, with a warning."""
    whole = torch.cat([weight.flatten() for weight in weights])
    parts = whole.split([weight.numel() for weight in weights])
    return [part.view(weight.shape) for part, weight in zip(parts, weights, strict=True)]


def _fake(name: str, inputs: Tensor, states: list[Tensor], weights: list[Tensor], training: bool) -> list[Tensor]:
    """Return fake results by cuDNN's own operator: torch's function asks the device for the layout of the weights."""
    weight_buffer = torch.cat([weight.detach().flatten() for weight in weights])
    hidden, memory = states[0], states[1] if name == "lstm" else None
    settings: Any = (_CUDNN_MODES[name], hidden.shape[-1], 0, 1, True, 0.0, training, False, [], None)
    results = torch._cudnn_rnn(inputs, weights, len(weights), weight_buffer, hidden, memory, *settings)
    return list(results[: 1 + len(states)])


def _product_type(inputs: Tensor) -> torch.dtype:
    """Return the type of the products: autocast's for float32, else that of the inputs."""
    kind = inputs.device.type
    if inputs.dtype == torch.float32 and autocast_active(inputs.device):
        return torch.get_autocast_dtype(kind)
    return inputs.dtype


def _last_valid(outputs: Tensor, before: Tensor, lengths: Tensor) -> Tensor:
    """Return the outputs (B, H) at each row's last valid step, or the state before the first step where there is none."""
    last = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, outputs.shape[2])
    return select(lengths > 0, outputs.gather(1, last)[:, 0], before)
