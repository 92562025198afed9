"""The causal depthwise convolution, with the last inputs of a sequence as its state."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from seqmem.data.masks import masked
from seqmem.errors import UserError
from seqmem.ops.compiled_sequence import register_scan
from seqmem.ops.precision import widest


def causal_convolution_reference(
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    restarts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute y_t = bias + sum_j weight_j x_{t-k+1+j}: the last of the k taps multiplies the current input.

    All arguments are in one type, or are converted to the widest of them; half precision is computed in float32.

    Args:
        inputs: x, (B, T, C).
        weight: (C, k), k > 0.
        bias: (C,), or None for 0.
        initial: (B, k-1, C) the inputs before the first step, the oldest first; None for zeros.
        lengths: (B,) int64 valid steps of each row; None if all T are valid.
        restarts: (B, T) bool, true at the first step of each document; earlier inputs count as zeros from there on. None for
            sequences of one document, which continue ``initial``.

    Returns:
        y (B, T, C) in the type of ``inputs``, zero in the padding, and the last k-1 inputs of each row's valid steps, (B, k-1,
        C), the oldest first, in the type of ``initial`` or ``inputs``. Inputs of earlier documents are zeros there.

    Raises:
        UserError: shapes or types that do not match.
    """
    check_shapes(inputs, weight, bias, initial, restarts)
    batch, steps, channels = inputs.shape
    taps, kept = weight.shape[1], inputs.dtype if initial is None else initial.dtype
    dtype = widest(inputs, weight, bias, initial)
    before = inputs.new_zeros(batch, taps - 1, channels, dtype=dtype) if initial is None else initial.to(dtype)
    extended = torch.cat([before, masked(inputs.to(dtype), lengths)], 1)
    documents = None if restarts is None else pad(restarts.cumsum(1), (taps - 1, 0))  # number of the document of each input
    outputs = torch.zeros_like(extended[:, taps - 1 :]) if bias is None else bias.to(dtype).expand(batch, steps, channels)
    for tap, factor in enumerate(weight.to(dtype).unbind(1)):
        delayed = extended[:, tap : tap + steps]
        if documents is not None:
            delayed = delayed.where((documents[:, tap : tap + steps] == documents[:, taps - 1 :])[..., None], 0)
        outputs = outputs + factor * delayed
    final = _last_inputs(extended, documents, taps - 1, lengths)
    return masked(outputs, lengths).to(inputs.dtype), final.to(kept)


def causal_convolution_compiled(
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    restarts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute :func:`causal_convolution_reference` in one call, in ``csrc/causal_convolution.cpp``.

    Gradients do not depend on the number of threads. Differentiable once.
    """
    check_shapes(inputs, weight, bias, initial, restarts)
    dtype, kept = widest(inputs, weight, bias, initial), inputs.dtype if initial is None else initial.dtype
    converted = [None if tensor is None else tensor.to(dtype) for tensor in (inputs, weight, bias, initial)]
    outputs, final = torch.ops.seqmem.causal_convolution(*converted, lengths, restarts)
    return outputs.to(inputs.dtype), final.to(kept)


def _last_inputs(extended: Tensor, documents: Tensor | None, count: int, lengths: Tensor | None) -> Tensor:
    """Return ``count`` inputs up to each row's last valid step, zero before its document.

    ``extended`` (B, count + T, C) and ``documents`` (B, count + T) begin with the inputs before the first step.
    """
    steps = extended.shape[1] - count
    if lengths is None:
        places = torch.arange(count, device=extended.device).expand(extended.shape[0], count) + steps
    else:
        places = torch.arange(count, device=extended.device) + lengths[:, None]
    last = extended.gather(1, places[..., None].expand(-1, -1, extended.shape[-1]))
    if documents is None or count == 0:
        return last
    numbers = documents.gather(1, places)
    return last.where((numbers == numbers[:, -1:])[..., None], 0)


def check_shapes(inputs: Tensor, weight: Tensor, bias: Tensor | None, initial: Tensor | None, restarts: Tensor | None) -> None:
    """Refuse arguments of :func:`causal_convolution_reference` that do not match inputs (B, T, C) and weight (C, k)."""
    if inputs.dim() != 3 or weight.dim() != 2 or weight.shape[0] != inputs.shape[-1] or weight.shape[1] == 0:
        raise UserError(
            f"causal_convolution: got inputs of shape {tuple(inputs.shape)} and weight of shape {tuple(weight.shape)}, "
            "expected (B, T, C) and (C, k) with k > 0"
        )
    batch, steps, channels = inputs.shape
    expected = {"bias": (channels,), "initial": (batch, weight.shape[1] - 1, channels), "restarts": (batch, steps)}
    for name, tensor in {"bias": bias, "initial": initial, "restarts": restarts}.items():
        if tensor is not None and tensor.shape != expected[name]:
            raise UserError(f"causal_convolution: got {name} of shape {tuple(tensor.shape)}, expected {expected[name]}")
    if restarts is not None and restarts.dtype != torch.bool:
        raise UserError(f"causal_convolution: got restarts of {restarts.dtype}, expected torch.bool")


def _shapes(inputs: Tensor, weight: Tensor, *others: Tensor | None) -> tuple[Tensor, Tensor]:
    batch, steps, channels = inputs.shape
    return inputs.new_empty(batch, steps, channels), inputs.new_empty(batch, weight.shape[1] - 1, channels)


register_scan("causal_convolution", _shapes)
