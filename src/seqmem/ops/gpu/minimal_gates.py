"""The recurrence of minGRU and minLSTM for CUDA tensors: the operator ``torch.ops.seqmem.minimal_gates_kernel``."""

from typing import Any

import torch
from torch import Tensor

from seqmem.ops import minimal_gates
from seqmem.ops.gpu.operators import Operator, register, runs_kernels
from seqmem.ops.minimal_gates import MinimalGates

BLOCK = 32
"""Units of a program, one for each thread of a warp."""

GROUP = 8
"""Steps of a group, whose loads are under way together."""


def minimal_gates_kernel(
    projected: Tensor, initial: Tensor | None = None, lengths: Tensor | None = None, gates: MinimalGates = "gru"
) -> tuple[Tensor, Tensor]:
    """Compute :func:`seqmem.ops.minimal_gates.minimal_gates_reference` by one kernel, gates included.

    Half precision is read as it is, and computed in float32. Differentiable once.
    """
    if not runs_kernels(projected):
        return minimal_gates.minimal_gates_reference(projected, initial, lengths, gates)
    dtype, wide = minimal_gates.checked_types(projected, initial, gates)
    projected = projected.double() if wide == torch.float64 else projected
    initial = None if initial is None else initial.to(wide)
    h, final = torch.ops.seqmem.minimal_gates_kernel(projected, initial, lengths, gates)
    return h.to(dtype), final


def _shapes(projected: Tensor, initial: Tensor | None, lengths: Tensor | None, gates: str) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(projected.dtype, torch.float32)
    batch, steps, rows = projected.shape
    size = rows // (2 if gates == "gru" else 3)
    return projected.new_empty(batch, steps, size, dtype=wide), projected.new_empty(batch, size, dtype=wide)


def _forward(results: tuple[Tensor, ...], projected: Tensor, initial: Any, lengths: Any, gates: str) -> None:
    from seqmem.ops.gpu import minimal_gates_kernels

    _launch(minimal_gates_kernels.minimal_gates_forward, results[0], gates, (projected, initial, lengths, *results))


def _backward(
    grad_outputs: Any, grad_final: Any, results: tuple[Tensor, ...], projected: Tensor, initial: Any, lengths: Any, gates: str
) -> dict[str, Tensor]:
    from seqmem.ops.gpu import minimal_gates_kernels

    grads = {"projected": torch.empty_like(projected)}
    if initial is not None:
        grads["initial"] = torch.empty_like(initial)
    _launch(
        minimal_gates_kernels.minimal_gates_backward, results[0], gates,
        (grad_outputs, grad_final, results[0], projected, initial, lengths, grads["projected"], grads.get("initial")),
    )  # fmt: skip
    return grads


def _launch(kernel: Any, outputs: Tensor, gates: str, tensors: tuple[Tensor | None, ...]) -> None:
    batch, steps, size = outputs.shape
    with torch.cuda.device_of(outputs):
        kernel[(batch, -(-size // BLOCK))](*tensors, steps, size, GATES=gates, BLOCK=BLOCK, GROUP=GROUP, num_warps=1)


register(
    Operator(
        name="minimal_gates_kernel",
        tensors=("projected", "initial?", "lengths?"),
        settings="str gates",
        shapes=_shapes,
        saved=0,
        forward=_forward,
        backward=_backward,
    )
)
