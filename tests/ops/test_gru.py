"""The compiled GRU with every activation of its candidate, against the reference in value and in every gradient."""

import pytest
import torch
from torch.testing import assert_close

from seqmem.ops.gru import gru_reference, gru_sequence
from tests.ops.sequences import needs_compiled

pytestmark = needs_compiled


@pytest.mark.parametrize("reset_after", [True, False], ids=["after", "before"])
@pytest.mark.parametrize("hidden_activation", ["id", "relu", "sigmoid", "tanh"])
def test_values_and_gradients_equal_the_reference(hidden_activation, reset_after):
    torch.manual_seed(0)
    shapes = [(3, 6, 2), (3, 17), (51, 2), (51, 17), (51,), (51,)]
    inputs, hidden, *weights = (0.5 * torch.randn(shape, dtype=torch.float64) for shape in shapes)
    given = [each.requires_grad_() for each in (inputs, hidden, *weights)]
    found = []
    for run in (gru_sequence, gru_reference):
        outputs, after = run(inputs, hidden, torch.tensor([6, 0, 4]), *weights, reset_after, hidden_activation)
        loss = (outputs * torch.linspace(-1, 1, outputs.numel()).view_as(outputs)).sum() + after.square().sum()
        found.append([outputs, after, *torch.autograd.grad(loss, given)])
    assert_close(*found)
    assert all(part.any() for part in found[0])


def test_an_unknown_activation_is_refused():
    weights = torch.zeros(12, 3), torch.zeros(12, 4)
    with pytest.raises(ValueError, match=r"hidden_activation: got 'tan', expected 'id', 'tanh', 'relu' or 'sigmoid'"):
        gru_sequence(torch.zeros(1, 2, 3), torch.zeros(1, 4), None, *weights, hidden_activation="tan")
