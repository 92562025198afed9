"""Hierarchical multiscale LSTM: one step of all layers, the reference sequence, and the fused one.

Chung, Ahn and Bengio, "Hierarchical Multiscale Recurrent Neural Networks" (2017), equations 2 to 7.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear

from seqmem.data.masks import masked
from seqmem.ops.compiled_sequence import chunk_steps, register_sequence
from seqmem.ops.loop import run_steps


class LayerWeights(NamedTuple):
    """Weights of layer l with D_l units.

    Attributes:
        weight: (4 D_l + 1, D_l + D_{l+1} + D_{l-1}), rows f, i, o, g and the detector's (4 D_l rows without detector).
        bias: (4 D_l + 1,), or None.
        gain: (4 D_l,) of the gates' layer normalisation; None without normalisation.
        memory_gain: (D_l,) of the normalisation of c, or None.
        memory_bias: (D_l,) of the normalisation of c, or None.
    """

    weight: Tensor
    bias: Tensor | None
    gain: Tensor | None
    memory_gain: Tensor | None
    memory_bias: Tensor | None

    @property
    def summed_bias(self) -> Tensor | None:
        """The bias that is a term of s; with normalisation the bias follows it, and this is None."""
        return self.bias if self.gain is None else None


class Boundaries(NamedTuple):
    """Settings that map the detector's s to a boundary.

    Attributes:
        slope: a, ().
        soft: boundaries are not rounded.
        hard_sigmoid: sigma is the hard sigmoid; else the logistic one.
    """

    slope: Tensor
    soft: bool
    hard_sigmoid: bool


def multiscale_step(
    projected: Tensor,
    hidden: Tensor,
    memory: Tensor,
    boundary: Tensor,
    layers: Sequence[LayerWeights],
    sizes: Sequence[int],
    boundaries: Boundaries,
    draws: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute one step of all layers, from the bottom up, see :class:`seqmem.cells.HMLSTM` for the equations.

    Args:
        projected: the bottom layer's terms in x, (B, 4 D_1 + 1), with its bias if there is no normalisation.
        hidden: h of all layers, (B, D).
        memory: c of all layers, (B, D).
        boundary: z of all layers, (B, L).
        layers: weights of each layer.
        sizes: D_l of each layer.
        boundaries: settings of the boundaries.
        draws: (B, L) uniform random numbers for sampled boundaries; None for a threshold of 1/2.

    Returns:
        h, c and z after the step.
    """
    old_hidden, old_memory, old_boundary = hidden.split(list(sizes), -1), memory.split(list(sizes), -1), boundary.split(1, -1)
    remains = (1 - _branch(boundary, boundaries)).split(1, -1)
    new_hidden: list[Tensor] = []
    new_memory: list[Tensor] = []
    new_boundary: list[Tensor] = []
    for k, layer in enumerate(layers):
        sources = [old_hidden[k]]
        if k + 1 < len(sizes):
            sources.append(old_boundary[k] * old_hidden[k + 1])
        if k == 0:
            summed = projected + linear(torch.cat(sources, -1), layer.weight)
        else:
            sources.append(new_boundary[-1] * new_hidden[-1])
            summed = linear(torch.cat(sources, -1), layer.weight, layer.summed_bias)
        f, i, o, g, s = _gates(summed.to(hidden.dtype), layer, sizes[k])
        # c = update (f c' + i g) + copy c' + flush i g with weights that sum to 1; the bottom layer never copies.
        if k == 0:
            c = torch.addcmul(i * g, remains[k] * f, old_memory[k])
            h = o * _squashed(c, layer)
        else:
            update = remains[k] * _branch(new_boundary[-1], boundaries)
            copy = remains[k] - update
            c = torch.addcmul(((1 - copy) * i) * g, torch.addcmul(copy, update, f), old_memory[k])
            h = torch.lerp(o * _squashed(c, layer), old_hidden[k], copy)
        new_hidden.append(h)
        new_memory.append(c)
        own_draws = None if draws is None else draws[:, k : k + 1]
        new_boundary.append(old_boundary[k] if s is None else _boundary(s, boundaries, own_draws))
    return torch.cat(new_hidden, -1), torch.cat(new_memory, -1), torch.cat(new_boundary, -1)


def multiscale_reference(
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
    """Compute a whole sequence by :func:`multiscale_step`.

    Arguments and results are those of :func:`multiscale_sequence`.
    """
    layers = _unflattened(parameters, sizes, top_detector, bias, layer_norm)
    boundaries = Boundaries(slope, soft, hard_sigmoid)
    first = layers[0].summed_bias
    terms = masked(projected, lengths) if first is None else masked(projected, lengths) + first
    drawn: Any = [None] * projected.shape[1] if draws is None else draws.unbind(0)

    def step(item: Any, state: Any) -> tuple[Tensor, Any]:
        h, c, z = state
        after = multiscale_step(item[0], h, c, z, layers, sizes, boundaries, item[1])
        return torch.cat([after[0], after[2]], -1), after

    items = zip(terms.unbind(1), drawn, strict=True)
    outputs, after = run_steps(step, items, (hidden, memory, boundary), lengths, projected.shape[1])
    widths = [hidden.shape[1], boundary.shape[1]]
    joined = torch.stack(outputs, 1) if outputs else projected.new_zeros(len(projected), 0, sum(widths))
    states, found = joined.split(widths, -1)
    return states, found, *after


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
    """Compute all layers and steps in one call, in ``csrc/multiscale.cpp``.

    For a row that COPYs a layer computes only its detector, and products with zero parts are skipped.

    Args:
        projected: (B, T, 4 D_1 + 1) the bottom layer's terms in the inputs (4 D_1 without detector), in the type of all other
            tensors, float32 or float64.
        hidden: (B, D) before the first step, D the sum of the sizes.
        memory: (B, D) before the first step.
        boundary: (B, L) before the first step.
        lengths: (B,) int64 valid steps of each row; None if all T are valid.
        draws: (T, B, L) uniform random numbers for sampled boundaries; None for a threshold of 1/2.
        parameters: (P,) all weights of the layers from the bottom up, see :func:`flattened`.
        slope: () a of the detectors.
        sizes: D_l.
        top_detector: the top layer has a detector.
        bias: layers have biases.
        layer_norm: gates and memory are normalised.
        soft: boundaries are not rounded.
        hard_sigmoid: the detectors' sigma; else the logistic sigmoid.

    Returns:
        outputs (B, T, D) and boundaries (B, T, L), zero in the padding, and hidden, memory and boundary after each row's last
        valid step. Differentiable once.

    Raises:
        ValueError: shapes or types that do not match.
    """
    given = (projected, hidden, memory, boundary, parameters)
    settings = (list(sizes), top_detector, bias, layer_norm, soft, hard_sigmoid)
    *results, _ = torch.ops.seqmem.multiscale_sequence(
        projected, hidden, memory, boundary, lengths, draws, parameters, slope, *settings, chunk_steps(*given)
    )
    return tuple(results)


def flattened(layers: Sequence[LayerWeights]) -> Tensor:
    """Concatenate the weights of all layers to ``parameters`` (P,) of :func:`multiscale_sequence`.

    Of each layer from the bottom up: weight, bias, gain, memory_gain and memory_bias, without those that are None.
    """
    return torch.cat([parameter.flatten() for layer in layers for parameter in layer if parameter is not None])


def _unflattened(
    parameters: Tensor, sizes: Sequence[int], top_detector: bool, bias: bool, normalized: bool
) -> list[LayerWeights]:
    """Invert :func:`flattened`."""
    layers, start = [], 0
    for k, size in enumerate(sizes):
        rows = 4 * size + (top_detector or k + 1 < len(sizes))
        columns = size + (sizes[k + 1] if k + 1 < len(sizes) else 0) + (sizes[k - 1] if k else 0)
        shapes = [
            (rows, columns),
            (rows,) if bias else None,
            (4 * size,) if normalized else None,
            (size,) if normalized else None,
            (size,) if normalized and bias else None,
        ]
        weights: list[Tensor | None] = []
        for shape in shapes:
            count = 0 if shape is None else torch.Size(shape).numel()
            weights.append(None if shape is None else parameters[start : start + count].view(shape))
            start += count
        layers.append(LayerWeights(*weights))  # type: ignore[arg-type]
    return layers


def _gates(summed: Tensor, layer: LayerWeights, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Map s (B, rows) to f, i, o and g (B, D_l) each, and s of the detector (B, 1), None without detector."""
    gates, detector = summed, None
    if summed.shape[-1] > 4 * size:
        gates, detector = summed.split([4 * size, 1], -1)
    if layer.gain is not None:
        gates = layer_norm(gates.unflatten(-1, (4, size)), (size,)).flatten(-2) * layer.gain
        if layer.bias is not None:
            gates = gates + layer.bias[: 4 * size]
            detector = None if detector is None else detector + layer.bias[4 * size :]
    opened, candidate = gates.split([3 * size, size], -1)
    f, i, o = torch.sigmoid(opened).chunk(3, -1)
    return f, i, o, torch.tanh(candidate), detector


def _squashed(memory: Tensor, layer: LayerWeights) -> Tensor:
    """Compute tanh of c (B, D_l), normalised if the layer does so."""
    if layer.memory_gain is not None:
        memory = layer_norm(memory, memory.shape[-1:], layer.memory_gain, layer.memory_bias)
    return torch.tanh(memory)


def _branch(boundary: Tensor, boundaries: Boundaries) -> Tensor:
    """Return z for the choice of a branch: only a soft choice has a gradient."""
    return boundary if boundaries.soft else boundary.detach()


def _boundary(s: Tensor, boundaries: Boundaries, draws: Tensor | None) -> Tensor:
    """Compute z (B, 1) from the detector's s (B, 1)."""
    steep = boundaries.slope * s
    p = ((steep + 1) / 2).clamp(0, 1) if boundaries.hard_sigmoid else torch.sigmoid(steep)
    if boundaries.soft:
        return p
    z = p > 0.5 if draws is None else draws < p
    return z.to(p.dtype) + (p - p.detach())  # straight-through: exactly z, with the gradient of p


def _shapes(projected: Tensor, hidden: Tensor, memory: Tensor, boundary: Tensor, *others: Any) -> tuple[Tensor, ...]:
    *_, sizes, _, _, _, _, _, steps_of_chunk = others
    batch, steps = projected.shape[:2]
    places = sum(-(-size // 16) * 16 for size in sizes)
    saved = 5 * places + -(-5 * len(sizes) // 16) * 16
    return (
        projected.new_empty(batch, steps, hidden.shape[1]),
        projected.new_empty(batch, steps, boundary.shape[1]),
        *(state.new_empty(state.shape) for state in (hidden, memory, boundary)),
        projected.new_empty(steps if steps_of_chunk > 0 else 0, batch, saved),
    )


def _gradient_shapes(*given: Any) -> list[Tensor]:
    projected, hidden, memory, boundary, _, _, parameters = given[8:15]
    sources = [projected, hidden, memory, boundary, parameters]
    shapes = [tensor.new_empty(tensor.shape) for tensor in sources]
    return shapes if given[-1] else [projected.new_empty(0), *shapes[1:]]


register_sequence("multiscale_sequence", 3, _shapes, outputs=2, gradient_shapes=_gradient_shapes)
