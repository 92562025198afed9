"""Sequences that begin with zeros: the gradients of a state at rest may overflow, and those of the weights are finite."""

import pytest
import torch
from torch import nn

from seqmem import cells

STEPS, LAST = 300, 4
CELLS = {
    "lmu_plain": ({"memory_order": 6, "theta": 20.0}, 2.5),
    "rnn": ({}, 3.0),
    "mgu": ({}, 6.0),
    "gru": ({}, 6.0),
    "lstm": ({}, 12.0),
}


def unstable(name, dtype):
    """A cell whose state at rest grows at least by a half a step, once it is disturbed."""
    arguments, gain = CELLS[name]
    torch.manual_seed(0)
    cell = cells.get(name)(1, hidden_size=8, **arguments).double()
    for key, parameter in cell.named_parameters():
        if key.startswith("bias"):
            nn.init.zeros_(parameter)
        elif key == "weight_hh":
            with torch.no_grad():
                for rows in parameter.split(8):
                    rows.copy_(gain * torch.linalg.qr(torch.randn(8, 8).double())[0])
    return cell.to(dtype)


def gradients(name, dtype):
    cell = unstable(name, dtype)
    inputs = torch.zeros(3, STEPS, 1, dtype=dtype)
    inputs[:, -LAST:] = torch.linspace(0.1, 0.5, 3 * LAST, dtype=dtype).view(3, LAST, 1)
    inputs.requires_grad_()
    cell(inputs)[0][:, -1].sum().backward()
    return inputs.grad, {key: parameter.grad for key, parameter in cell.named_parameters()}


@pytest.mark.parametrize("name", CELLS)
def test_the_gradients_of_the_weights_are_those_of_float64(name):
    (_, exact), (inputs, found) = (gradients(name, dtype) for dtype in (torch.float64, torch.float32))
    assert gradients(name, torch.float64)[0].abs().max() > 1e39  # more than float32 holds
    assert inputs.isfinite().all()
    for key, gradient in found.items():
        if key not in ("bias_hx", "bias_ih", "bias_hh", "bias_h"):  # the true ones overflow
            torch.testing.assert_close(gradient.double(), exact[key], rtol=1e-3, atol=1e-4 * float(exact[key].abs().max()))


@pytest.mark.parametrize("name", CELLS)
def test_an_incoming_gradient_that_is_not_finite_reaches_the_weights(name):
    cell = unstable(name, torch.float32)
    cell(torch.ones(3, 5, 1))[0].backward(torch.full((3, 5, 8), torch.inf))
    assert not any(parameter.grad.isfinite().all() for parameter in cell.parameters())
