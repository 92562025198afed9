"""The diagonal scan for CUDA tensors: the operator ``torch.ops.seqmem.diagonal_scan_kernel`` and its gradient."""

from typing import Any

import torch
from torch import Tensor

from seqmem.ops import diagonal_scan
from seqmem.ops.gpu.operators import Operator, register, runs_kernels

BLOCK = 32
"""Numbers of a program, one for each thread of a warp: many programs, and whole lines of memory in each load."""

GROUP = 8
"""Steps of a group, whose loads are under way together."""


def diagonal_scan_kernel(
    a: Tensor, b: Tensor, initial: Tensor | None = None, lengths: Tensor | None = None, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Compute :func:`seqmem.ops.diagonal_scan.diagonal_scan_reference` by one kernel.

    Half precision is read as it is, and computed in float32. Differentiable once.
    """
    if not runs_kernels(b):
        return diagonal_scan.diagonal_scan_reference(a, b, initial, lengths, reverse)
    dtype, wide = diagonal_scan.checked_types(a, b, initial)
    if wide.is_complex:
        initial = None if initial is None else _as_pairs(initial.to(wide))
        h, final = diagonal_scan_kernel(_as_pairs(a.to(wide)), _as_pairs(b.to(wide)), initial, lengths, reverse)
        return torch.view_as_complex(h), torch.view_as_complex(final)
    if wide == torch.float64:
        a, b = a.double(), b.double()
    initial = None if initial is None else initial.to(wide)
    h, final = torch.ops.seqmem.diagonal_scan_kernel(a, b, initial, lengths, reverse)
    return h.to(dtype), final


def _as_pairs(numbers: Tensor) -> Tensor:
    return torch.view_as_real(numbers.resolve_conj())


def _shapes(a: Tensor, b: Tensor, initial: Tensor | None, lengths: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    wide = wide if initial is None else torch.promote_types(wide, initial.dtype)
    return b.new_empty(b.shape, dtype=wide), b.new_empty(b.shape[:1] + b.shape[2:], dtype=wide)


def _forward(results: tuple[Tensor, ...], a: Tensor, b: Tensor, initial: Any, lengths: Any, reverse: bool) -> None:
    from seqmem.ops.gpu import diagonal_scan_kernels

    _launch(diagonal_scan_kernels.diagonal_scan_forward, a, b, reverse, (a, b, initial, lengths, *results))


def _backward(
    grad_outputs: Any,
    grad_final: Any,
    results: tuple[Tensor, ...],
    a: Tensor,
    b: Tensor,
    initial: Any,
    lengths: Any,
    reverse: bool,
) -> dict[str, Tensor]:
    from seqmem.ops.gpu import diagonal_scan_kernels

    h, final = results
    grad_a = torch.empty_like(a) if a.dim() == b.dim() else torch.empty_like(final)
    grads = {"a": grad_a, "b": torch.empty_like(b)}
    if initial is not None:
        grads["initial"] = torch.empty_like(initial)
    _launch(
        diagonal_scan_kernels.diagonal_scan_backward, a, b, reverse,
        (grad_outputs, grad_final, h, a, initial, lengths, grad_a, grads["b"], grads.get("initial")),
    )  # fmt: skip
    return grads | {"a": grad_a if a.dim() == b.dim() else grad_a.sum(0)}


def _launch(kernel: Any, a: Tensor, b: Tensor, reverse: bool, tensors: tuple[Tensor | None, ...]) -> None:
    batch, steps, size = b.shape[:3]
    with torch.cuda.device_of(b):
        kernel[(batch, -(-size // BLOCK))](
            *tensors, steps, size, VARYING=a.dim() == b.dim(), PAIRS=b.dim() == 4, REVERSE=reverse, BLOCK=BLOCK, GROUP=GROUP,
            num_warps=1,
        )  # fmt: skip


register(
    Operator(
        name="diagonal_scan_kernel",
        tensors=("a", "b", "initial?", "lengths?"),
        settings="bool reverse",
        shapes=_shapes,
        saved=0,
        forward=_forward,
        backward=_backward,
    )
)
