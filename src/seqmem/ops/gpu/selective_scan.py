"""The selective scan for CUDA tensors: the operator ``torch.ops.seqmem.selective_scan_kernel`` and its gradient."""

from typing import Any

import torch
from torch import Tensor

from seqmem.ops import selective_scan
from seqmem.ops.gpu.operators import MOST_WARPS, Operator, needs_gradient, register, runs_kernels
from seqmem.ops.precision import widest

TILE = 512
"""Most states of a program, of all its channels; a quarter of it in float64."""

WARP_STATES = 128
"""Most states of a channel in a warp: more of them take too many registers."""

CHUNK = 32
"""Steps between the states that backward has; it holds those of one chunk, (B, CHUNK, N, D)."""

GROUP = 4
"""Steps of a group, whose loads are under way together; a divisor of CHUNK."""

_NAMES = ("delta", "a", "b", "c", "skip", "gate", "delta_bias", "initial")


def selective_scan_kernel(
    inputs: Tensor,
    delta: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    skip: Tensor | None = None,
    gate: Tensor | None = None,
    delta_bias: Tensor | None = None,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    softplus: bool = False,
) -> tuple[Tensor, Tensor]:
    """Compute :func:`seqmem.ops.selective_scan.selective_scan_reference` by one kernel.

    Tensors of size (B, T, D, N) are never stored. Backward holds the gradients of b and c for each block of channels, in all
    1/16 of such a tensor for up to 16 states in float32. Half precision is read as it is, and computed in float32. Gradients do
    not depend on the order in which programs run. Differentiable once.
    """
    given = (delta, a, b, c, skip, gate, delta_bias, initial)
    if not runs_kernels(inputs, a):
        return selective_scan.selective_scan_reference(inputs, *given, lengths, softplus)
    selective_scan.check_shapes(inputs, dict(zip(_NAMES, given, strict=True)))
    wide = widest(inputs, *given)
    initial = None if initial is None else initial.to(wide)
    chunk = CHUNK if needs_gradient(inputs, *given) else 0
    outputs, final, _ = torch.ops.seqmem.selective_scan_kernel(
        inputs.double() if wide == torch.float64 else inputs,
        delta, a.to(wide), b, c, skip, gate, delta_bias, initial, lengths, softplus, chunk,
    )  # fmt: skip
    return outputs.to(inputs.dtype), final


def _shapes(inputs: Tensor, delta: Tensor, a: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    (batch, steps, _), (channels, states), chunk = inputs.shape, a.shape, others[-1]
    starts = (batch, -(-steps // chunk), states, channels) if chunk else (0,)
    return inputs.new_empty(inputs.shape), a.new_empty(batch, channels, states), a.new_empty(starts)


def _forward(
    results: tuple[Tensor, ...],
    inputs: Tensor,
    delta: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    skip: Any,
    gate: Any,
    delta_bias: Any,
    initial: Any,
    lengths: Any,
    softplus: bool,
    chunk: int,
) -> None:
    from seqmem.ops.gpu import selective_scan_kernels

    outputs, final, starts = results
    last = torch.empty_like(final.mT, memory_format=torch.contiguous_format)
    tensors = (inputs, delta, _transposed(a), b, c, skip, gate, delta_bias, _transposed(initial), lengths)
    written = (outputs, last, starts if chunk else None)
    _launch(selective_scan_kernels.selective_scan_forward, a, inputs, softplus, (*tensors, *written))
    final.copy_(last.mT)


def _backward(
    grad_outputs: Any,
    grad_final: Any,
    results: tuple[Tensor, ...],
    inputs: Tensor,
    delta: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    skip: Any,
    gate: Any,
    delta_bias: Any,
    initial: Any,
    lengths: Any,
    softplus: bool,
    chunk: int,
) -> dict[str, Tensor]:
    from seqmem.ops.gpu import selective_scan_kernels

    (batch, steps, channels), states = inputs.shape, a.shape[1]
    blocks = -(-channels // block_sizes(a)["BLOCK"])
    scratch = a.new_empty(batch, chunk, states, channels)
    grads = {"inputs": torch.empty_like(inputs), "delta": torch.empty_like(delta), "a": a.new_empty(batch, states, channels)}
    grads |= {name: a.new_empty(blocks, batch, steps, states) for name in ("b", "c")}
    rows = [name for name, tensor in (("skip", skip), ("delta_bias", delta_bias)) if tensor is not None]
    grads |= {name: a.new_empty(batch, channels) for name in rows}
    if gate is not None:
        grads["gate"] = torch.empty_like(gate)
    if initial is not None:
        grads["initial"] = a.new_empty(batch, states, channels)
    tensors = (inputs, delta, _transposed(a), b, c, skip, gate, delta_bias, lengths)
    written = [grads.get(name) for name in ("inputs", "delta", "a", "b", "c", "skip", "gate", "delta_bias", "initial")]
    _launch(
        selective_scan_kernels.selective_scan_backward, a, inputs, softplus,
        (grad_outputs, _transposed(grad_final), results[2], scratch, *tensors, *written),
    )  # fmt: skip
    for name in ("a", "b", "c", *rows):
        grads[name] = grads[name].sum(0)
    grads["a"] = grads["a"].mT
    if initial is not None:
        grads["initial"] = grads["initial"].mT
    return grads


def _transposed(tensor: Tensor | None) -> Tensor | None:
    """Return states (..., N, D), so that the channels of a program are neighbours in memory."""
    return None if tensor is None else tensor.mT.contiguous()


def _launch(kernel: Any, a: Tensor, inputs: Tensor, softplus: bool, tensors: tuple[Tensor | None, ...]) -> None:
    (batch, steps, channels), states = inputs.shape, a.shape[1]
    sizes = block_sizes(a)
    with torch.cuda.device_of(inputs):
        kernel[(batch, -(-channels // sizes["BLOCK"]))](
            *tensors, steps, channels, states, SOFTPLUS=softplus, CHUNK=CHUNK, GROUP=GROUP, **sizes
        )


def block_sizes(a: Tensor) -> dict[str, int]:
    """Return the channels of a program, the states of each, rounded up to a power of two, and the warps."""
    states, most = 1 << (a.shape[1] - 1).bit_length(), TILE * 16 // a.element_size() ** 2
    warps = max(1, min(MOST_WARPS, states // WARP_STATES))
    return {"BLOCK": max(1, min(32, most // states)), "BLOCK_N": states, "num_warps": warps}


register(
    Operator(
        name="selective_scan_kernel",
        tensors=("inputs", "delta", "a", "b", "c", "skip?", "gate?", "delta_bias?", "initial?", "lengths?"),
        settings="bool softplus, int chunk",
        shapes=_shapes,
        saved=1,
        forward=_forward,
        backward=_backward,
    )
)
