"""Forced harmonic oscillators for CUDA tensors: the operator ``torch.ops.seqmem.oscillators_kernel`` and its gradient."""

from typing import Any

import torch
from torch import Tensor

from seqmem.ops import oscillators
from seqmem.ops.gpu.operators import Operator, needs_gradient, register, runs_kernels
from seqmem.ops.oscillators import OscillatorMethod

BLOCK = 32
"""Numbers of a program, one for each thread of a warp; an oscillator has two."""

GROUP = 8
"""Steps of a group, whose loads are under way together."""


def oscillator_scan_kernel(
    stiffness: Tensor,
    step: Tensor,
    driven: Tensor,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    method: OscillatorMethod = "im",
) -> tuple[Tensor, Tensor]:
    """Compute :func:`seqmem.ops.oscillators.oscillator_scan_reference` by one kernel.

    Half precision of u is read as it is, and computed in float32. Differentiable once.
    """
    if not runs_kernels(driven):
        return oscillators.oscillator_scan_reference(stiffness, step, driven, initial, lengths, method)
    dtype, wide = oscillators.checked_types(stiffness, step, driven, initial, method)
    driven = driven.double() if wide == torch.float64 else driven
    initial = None if initial is None else initial.to(wide)
    coefficients = oscillators.unified(stiffness.to(wide), step.to(wide), method)
    keeps_velocities = needs_gradient(coefficients, driven, initial)
    positions, final, _ = torch.ops.seqmem.oscillators_kernel(coefficients, driven, initial, lengths, keeps_velocities)
    return positions.to(dtype), final


def _shapes(
    coefficients: Tensor, driven: Tensor, initial: Any, lengths: Any, keeps_velocities: bool
) -> tuple[Tensor, Tensor, Tensor]:
    batch, _, count, _ = driven.shape
    velocities = coefficients.new_empty(driven.shape if keeps_velocities else (0,))
    return coefficients.new_empty(driven.shape), coefficients.new_empty(batch, 2, count, 2), velocities


def _forward(
    results: tuple[Tensor, ...], coefficients: Tensor, driven: Tensor, initial: Any, lengths: Any, keeps_velocities: bool
) -> None:
    from seqmem.ops.gpu import oscillators_kernels

    positions, final, velocities = results
    written = (positions, final, velocities if keeps_velocities else None)
    _launch(oscillators_kernels.oscillators_forward, driven, (coefficients, driven, initial, lengths, *written))


def _backward(
    grad_positions: Any, grad_final: Any, results: tuple[Tensor, ...], coefficients: Tensor, driven: Tensor, initial: Any,
    lengths: Any, keeps_velocities: bool,
) -> dict[str, Tensor]:  # fmt: skip
    from seqmem.ops.gpu import oscillators_kernels

    positions, final, velocities = results
    sums = final.new_empty(len(final), 4, *final.shape[2:])
    grads = {"driven": torch.empty_like(driven)}
    if initial is not None:
        grads["initial"] = torch.empty_like(initial)
    _launch(
        oscillators_kernels.oscillators_backward, driven,
        (
            grad_positions, grad_final, positions, velocities, coefficients, driven, initial, lengths, sums, grads["driven"],
            grads.get("initial"),
        ),
    )  # fmt: skip
    return grads | {"coefficients": sums.sum((0, 3))}


def _launch(kernel: Any, driven: Tensor, tensors: tuple[Tensor | None, ...]) -> None:
    batch, steps, count, _ = driven.shape
    with torch.cuda.device_of(driven):
        kernel[(batch, -(-2 * count // BLOCK))](*tensors, steps, 2 * count, BLOCK=BLOCK, GROUP=GROUP, num_warps=1)


register(
    Operator(
        name="oscillators_kernel",
        tensors=("coefficients", "driven", "initial?", "lengths?"),
        settings="bool keeps_velocities",
        shapes=_shapes,
        saved=1,
        forward=_forward,
        backward=_backward,
    )
)
