"""Comparisons of a layer or a block with golden vectors, in values, states and every gradient."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.testing import assert_close

from seqmem.sequence import SequenceLayer
from tests.successors import Case, assert_near

Arrays = dict[str, Tensor]


def assert_golden(module: nn.Module, case: Case, renamed: Callable[[Arrays], Arrays], call: Callable[..., Any]) -> Any:
    """Compare outputs and the gradients of inputs and parameters; return what the call returns beside the outputs.

    Args:
        module: in float64; its parameters are replaced.
        case: the golden vectors.
        renamed: maps arrays by the original names of parameters to arrays by the module's.
        call: maps inputs to outputs and the rest.
    """
    module.load_state_dict(renamed(case.named("param")), strict=False)
    expected = renamed(case.named("grad"))
    parameters = dict(module.named_parameters())
    assert set(expected) == set(parameters)
    inputs = case["x"].requires_grad_()
    outputs, rest = call(inputs)
    assert_near(outputs, case["outputs"])
    gradients = torch.autograd.grad((outputs * case["cotangent"]).sum(), [inputs, *parameters.values()])
    for name, gradient in zip(["x", *parameters], gradients, strict=True):
        wanted = case["grad_x"] if name == "x" else expected[name]
        assert gradient.shape == wanted.shape, name
        assert_near(gradient, wanted, 1e-9)
    return rest


def assert_steps_agree(layer: SequenceLayer[Any], inputs: Tensor, rate: dict[str, float] | None = None) -> None:
    """Compare a whole sequence with single steps and with two halves, outputs and states."""
    rate = rate or {}
    outputs, last = layer(inputs, **rate)
    state, steps = None, []
    for item in inputs.unbind(1):
        output, state = layer.step(item, state, **rate)
        steps.append(output)
    assert_close(torch.stack(steps, 1), outputs)
    assert_close(state, last)
    first, state = layer(inputs[:, :5], **rate)
    second, after = layer(inputs[:, 5:], state, **rate)
    assert_close(torch.cat([first, second], 1), outputs)
    assert_close(after, last)
