"""Diagonal state space models for CUDA tensors: the operator ``torch.ops.seqmem.diagonal_ssm_kernel`` and its gradient."""

from typing import Any

import torch
from torch import Tensor

from seqmem.ops import diagonal_ssm
from seqmem.ops.gpu.operators import MOST_WARPS, Operator, needs_gradient, register, runs_kernels
from seqmem.ops.precision import widest

TILE = 128
"""Most modes of a warp, of all its channels; half of it in float64."""

CHUNK = 32
"""Steps between the states that backward has; it holds those of one chunk, (B, CHUNK, H, M, 2)."""

GROUP = 8
"""Steps of a group, whose loads are under way together; a divisor of CHUNK."""


def diagonal_ssm_kernel(
    inputs: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    skip: Tensor | None = None,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Compute :func:`seqmem.ops.diagonal_ssm.diagonal_ssm_reference` by one kernel.

    States (B, T, H, M) are never stored. Half precision of the inputs is read as it is, and computed in float32. Differentiable
    once.
    """
    if not runs_kernels(inputs, a):
        return diagonal_ssm.diagonal_ssm_reference(inputs, a, b, c, skip, initial, lengths, reverse)
    diagonal_ssm.check_shapes(inputs, a, b, c, skip, initial)
    dtype, wide = inputs.dtype, widest(inputs, a, b, c, skip, initial)
    inputs = inputs.double() if wide == torch.float64 else inputs
    parameters = [None if part is None else part.to(wide) for part in (a, b, c, skip, initial)]
    chunk = CHUNK if needs_gradient(inputs, *parameters) else 0
    outputs, final, _ = torch.ops.seqmem.diagonal_ssm_kernel(inputs, *parameters, lengths, reverse, chunk)
    return outputs.to(dtype), final


def _shapes(
    inputs: Tensor, a: Tensor, b: Tensor, c: Tensor, skip: Any, initial: Any, lengths: Any, reverse: bool, chunk: int
) -> tuple[Tensor, Tensor, Tensor]:
    batch, steps, channels = inputs.shape
    starts = (batch, -(-steps // chunk), 2 if _pairs(a) else 1, a.shape[1], channels) if chunk else (0,)
    return inputs.new_empty(inputs.shape), a.new_empty(batch, *a.shape), a.new_empty(starts)


def _forward(
    results: tuple[Tensor, ...],
    inputs: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    skip: Any,
    initial: Any,
    lengths: Any,
    reverse: bool,
    chunk: int,
) -> None:
    from seqmem.ops.gpu import diagonal_ssm_kernels

    outputs, final, starts = results
    pairs = _pairs(a)
    last = a.new_empty(len(inputs), 2 if pairs else 1, a.shape[1], a.shape[0])
    tensors = (inputs, *(_planes(part, pairs) for part in (a, b, c)), skip, _planes(initial, pairs), lengths)
    _launch(diagonal_ssm_kernels.diagonal_ssm_forward, inputs, a, reverse, (*tensors, outputs, last, starts if chunk else None))
    final.copy_(_from_planes(last, pairs))


def _backward(
    grad_outputs: Any,
    grad_final: Any,
    results: tuple[Tensor, ...],
    inputs: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    skip: Any,
    initial: Any,
    lengths: Any,
    reverse: bool,
    chunk: int,
) -> dict[str, Tensor]:
    from seqmem.ops.gpu import diagonal_ssm_kernels

    starts, pairs = results[2], _pairs(a)
    state = (len(inputs), *starts.shape[2:])
    planes = {name: starts.new_empty(state) for name in ("a", "b", "c", *(() if initial is None else ("initial",)))}
    grads = {"inputs": torch.empty_like(inputs)}
    if skip is not None:
        grads["skip"] = skip.new_empty(len(inputs), len(skip))
    scratch = starts.new_empty(len(inputs), chunk, *starts.shape[2:])
    _launch(
        diagonal_ssm_kernels.diagonal_ssm_backward, inputs, a, reverse,
        (
            grad_outputs, _planes(grad_final, pairs), starts, scratch, inputs, *(_planes(part, pairs) for part in (a, b, c)),
            skip, lengths, grads["inputs"], planes["a"], planes["b"], planes["c"], grads.get("skip"), planes.get("initial"),
        ),
    )  # fmt: skip
    if skip is not None:
        grads["skip"] = grads["skip"].sum(0)
    for name, plane in planes.items():
        grads[name] = _from_planes(plane if name == "initial" else plane.sum(0), pairs)
    return grads


def _pairs(a: Tensor) -> bool:
    return a.dim() == 3


def _planes(tensor: Tensor | None, pairs: bool) -> Tensor | None:
    """Return numbers (..., H, M, 2) or (..., H, M) as (..., 2 or 1, M, H): the channels of a program are neighbours."""
    if tensor is None:
        return None
    return (tensor if pairs else tensor.unsqueeze(-1)).transpose(-3, -1).contiguous()


def _from_planes(tensor: Tensor, pairs: bool) -> Tensor:
    """Undo :func:`_planes`."""
    numbers = tensor.transpose(-3, -1)
    return numbers if pairs else numbers.squeeze(-1)


def _launch(kernel: Any, inputs: Tensor, a: Tensor, reverse: bool, tensors: tuple[Tensor | None, ...]) -> None:
    (batch, steps, channels), modes = inputs.shape, a.shape[1]
    sizes = block_sizes(a)
    with torch.cuda.device_of(inputs):
        kernel[(batch, -(-channels // sizes["BLOCK"]))](
            *tensors, steps, channels, modes, PAIRS=_pairs(a), REVERSE=reverse, CHUNK=CHUNK, GROUP=GROUP, **sizes
        )


def block_sizes(a: Tensor) -> dict[str, int]:
    """Return the channels of a program, the modes of each, rounded up to a power of two, and the warps."""
    modes, most = 1 << (a.shape[1] - 1).bit_length(), TILE * 4 // a.element_size()
    return {"BLOCK": max(1, min(32, most // modes)), "BLOCK_M": modes, "num_warps": max(1, min(MOST_WARPS, modes // most))}


register(
    Operator(
        name="diagonal_ssm_kernel",
        tensors=("inputs", "a", "b", "c", "skip?", "initial?", "lengths?"),
        settings="bool reverse, int chunk",
        shapes=_shapes,
        saved=1,
        forward=_forward,
        backward=_backward,
    )
)
