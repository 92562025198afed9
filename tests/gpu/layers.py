"""A layer on a device next to the same layer's time loop in float64 on the CPU."""

import copy
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqmem import cells, sequence
from seqmem.ops.states import mapped, parts
from seqmem.sequence import SequenceLayer
from tests.cells import test_battery as cell_battery
from tests.layers import test_battery as layer_battery

NAMES = sequence.names()
CPU = torch.device("cpu")
TOLERANCES = {torch.float64: 1e-9, torch.float32: 2e-3}
"""Largest norm of a difference from float64, relative to the norm of the values."""


class Pass(NamedTuple):
    """Results of one forward and backward.

    Attributes:
        values: outputs (B, T, H) and the parts of the state.
        gradients: those of the inputs, of the initial state and of the parameters, where there are any.
    """

    values: list[Tensor]
    gradients: list[Tensor]


def exact_layer(name: str, **changes: Any) -> SequenceLayer:
    """Return a registered cell or layer in float64 on the CPU; changes of arguments that it does not have are left out."""
    if name not in cells.names():
        return layer_battery.make(name, changes.get("hidden_size", 6)).train()
    known = cell_battery.config(name)["cell_args"]
    return cell_battery.make(name, **{key: value for key, value in changes.items() if key in known})


def sample(name: str, batch: int, steps: int) -> Tensor:
    """Return inputs (B, T, 3) in float64; for a layer with times the first channel increases."""
    inputs = torch.randn(batch, steps, 3, dtype=torch.float64)
    if sequence.get(name).timed:
        inputs[..., 0] = (torch.rand(batch, steps, dtype=torch.float64) + 0.1).cumsum(1)
    return inputs


def on(layer: SequenceLayer, device: torch.device, dtype: torch.dtype) -> SequenceLayer:
    """Return a copy of a layer."""
    return copy.deepcopy(layer).to(device, dtype)


def moved(state: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Return a state on a device; its floating-point and complex parts in the precision of ``dtype``."""

    def move(part: Tensor) -> Tensor:
        kind = dtype if part.is_floating_point() else dtype.to_complex() if part.is_complex() else part.dtype
        return part.detach().to(device, kind)

    return None if state is None else mapped(move, state)


def loss_of(values: list[Tensor]) -> Tensor:
    """Return a loss, in float64, that every element of outputs and state has its own weight in."""
    total = torch.zeros((), dtype=torch.float64, device=values[0].device)
    for value in values:
        if value.is_complex():
            value = torch.view_as_real(value)
        if value.is_floating_point():
            weights = torch.linspace(-1, 1.5, value.numel(), dtype=torch.float64, device=value.device)
            total = total + (value.double() * weights.view_as(value)).sum()
    return total


def sources_of(layer: SequenceLayer, inputs: Tensor, state: Any) -> list[Tensor]:
    """Return the tensors that get a gradient."""
    return [inputs, *(part for part in parts(state) if part.requires_grad), *layer.parameters()]


def run(layer: SequenceLayer, inputs: Tensor, state: Any = None, lengths: Tensor | None = None, autocast: bool = False) -> Pass:
    """Run a layer forward and backward on copies of the inputs, which are moved to its device."""
    weight = next(layer.parameters())
    inputs = moved(inputs, weight.device, weight.dtype).requires_grad_()
    state = moved(state, weight.device, weight.dtype)
    for part in parts(state):
        part.requires_grad_(part.is_floating_point() or part.is_complex())
    lengths = None if lengths is None else lengths.to(weight.device)
    with torch.autocast(weight.device.type, torch.bfloat16) if autocast else nullcontext():
        outputs, after = layer(inputs, state, lengths)
    values = [outputs, *parts(after)]
    gradients = torch.autograd.grad(loss_of(values), sources_of(layer, inputs, state), materialize_grads=True)
    return Pass([value.detach() for value in values], list(gradients))


def reference(layer: SequenceLayer, inputs: Tensor, state: Any = None, lengths: Tensor | None = None) -> Pass:
    """Run the time loop of a float64 layer on the CPU forward and backward."""
    fresh = state is None
    inputs = inputs.clone().requires_grad_()
    before = layer.initial_state(len(inputs)) if fresh else moved(state, CPU, torch.float64)
    for part in [] if fresh else parts(before):
        part.requires_grad_(part.is_floating_point() or part.is_complex())
    outputs, after = layer.stepwise_forward(inputs, before, lengths, fresh)
    values = [outputs, *parts(after)]
    sources = sources_of(layer, inputs, None if fresh else before)
    gradients = torch.autograd.grad(loss_of(values), sources, materialize_grads=True)
    return Pass([value.detach() for value in values], list(gradients))


def check(found: Pass, expected: Pass, tolerance: float, gradients: float | None = None) -> None:
    """Fail unless values and gradients agree, each tensor within a tolerance relative to its norm.

    Args:
        found: of the device.
        expected: of the reference.
        tolerance: of values.
        gradients: of gradients; None for the same.
    """
    check_tensors("value", found.values, expected.values, tolerance)
    check_tensors("gradient", found.gradients, expected.gradients, tolerance if gradients is None else gradients)


def check_tensors(what: str, found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    """Fail unless tensors agree within a tolerance relative to their norm, or to a thousandth of the largest norm."""
    floor = 1e-3 * max(_norm(tensor) for tensor in expected)
    for k, (one, other) in enumerate(zip(found, expected, strict=True)):
        difference = _norm(one.detach().cpu().to(other.dtype) - other)
        limit = tolerance * max(_norm(other), floor)
        assert difference <= limit, f"{what} {k} of shape {tuple(other.shape)}: got a difference of {difference}, limit {limit}"


def _norm(tensor: Tensor) -> float:
    return tensor.detach().to(torch.complex128 if tensor.is_complex() else torch.float64).norm().item()
