"""A stack of hierarchical multiscale LSTM layers over a whole sequence in one call, in ``csrc/multiscale.cpp``.

What the call computes is the step-by-step loop of ``seqmem.cells.HMLSTM``, which remains its reference.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from seqmem.ops import extension
from seqmem.ops.sequence import chunk_steps, register


def multiscale_sequence(
    projected: Tensor,
    hidden: Tensor,
    memory: Tensor,
    boundary: Tensor,
    lengths: Tensor | None,
    draws: Tensor | None,
    parameters: Tensor,
    slope: Tensor,
    sizes: Sequence[int],
    *,
    top_detector: bool,
    bias: bool,
    layer_norm: bool,
    soft: bool,
    hard_sigmoid: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """All layers and steps, forward. A row that COPYs costs a layer its detector only, and parts that are zero cost nothing.

    Args:
        projected: (B, T, 4 D_1 + 1) what the bottom layer reads of the inputs (4 D_1 without detector), float32 or float64 as
            all others.
        hidden: (B, D) before the first step, D the sum of the sizes.
        memory: (B, D) before the first step.
        boundary: (B, L) before the first step.
        lengths: (B,) int64 valid steps of each row; None if all T are valid.
        draws: (T, B, L) uniform numbers that boundaries are drawn with; None for a threshold of 1/2.
        parameters: (P,) of the layers from the bottom up: weight (4 D_l + 1, D_l + D_{l+1} + D_{l-1}), bias (4 D_l + 1,), gain
            (4 D_l,), and gain and bias of the memory's normalisation (D_l,), each if there is one.
        slope: () a of the detectors.
        sizes: D_l.
        top_detector: the top layer has a detector.
        bias: there are biases.
        layer_norm: gates and memory are normalised.
        soft: boundaries are not rounded.
        hard_sigmoid: the detectors' sigma; else the logistic sigmoid.

    Returns:
        outputs (B, T, D) and boundaries (B, T, L), zero where padded, and hidden, memory and boundary after each row's last
        valid step. Differentiable once.

    Raises:
        ValueError: shapes or types that do not fit together.
    """
    given = (projected, hidden, memory, boundary, parameters)
    settings = (list(sizes), top_detector, bias, layer_norm, soft, hard_sigmoid)
    *results, _ = torch.ops.seqmem.multiscale_sequence(
        projected, hidden, memory, boundary, lengths, draws, parameters, slope, *settings, chunk_steps(*given)
    )
    return tuple(results)


def _shapes(projected: Tensor, hidden: Tensor, memory: Tensor, boundary: Tensor, *others: Any) -> tuple[Tensor, ...]:
    *_, sizes, _, _, _, _, _, chunk = others
    batch, steps = projected.shape[:2]
    places = sum(-(-size // 16) * 16 for size in sizes)
    kept = 5 * places + -(-5 * len(sizes) // 16) * 16
    return (
        projected.new_empty(batch, steps, hidden.shape[1]),
        projected.new_empty(batch, steps, boundary.shape[1]),
        *(state.new_empty(state.shape) for state in (hidden, memory, boundary)),
        projected.new_empty(steps if chunk > 0 else 0, batch, kept),
    )


def _gradient_shapes(*given: Any) -> list[Tensor]:
    projected, hidden, memory, boundary, _, _, parameters = given[8:15]
    wanted = [projected, hidden, memory, boundary, parameters]
    shapes = [tensor.new_empty(tensor.shape) for tensor in wanted]
    return shapes if given[-1] else [projected.new_empty(0), *shapes[1:]]


if not extension.REASON:
    extension.register_shapes("seqmem::multiscale_sequence", _shapes)
    extension.register_shapes("seqmem::multiscale_sequence_backward", _gradient_shapes)
    register("multiscale_sequence", states=3, outputs=2)
