"""Outputs and gradients equal the original implementation's, whose memories' matrices had been rounded to float32."""

import pytest
import torch
from torch.testing import assert_close

from seqmem import cells
from seqmem.ops import extension
from tests.cells import golden


@pytest.mark.parametrize("case", sorted(golden.cases()))
def test_values_and_gradients_equal_the_originals(case):
    data, expected = golden.arrays(case), golden.parameters(case, "grad")
    tolerance = {"rtol": 2e-5, "atol": 2e-6} if "memory_final" in data else {"rtol": 1e-10, "atol": 1e-12}
    for stepwise in (False, True):
        cell = golden.cell(case)
        timestamped = case == "tlsi"  # the compiled sequence has no gradient for times
        inputs = data["x"].transpose(0, 1).clone().requires_grad_(stepwise or not timestamped)
        initial = cell.initial_state(len(inputs))
        outputs, state = cell.stepwise_forward(inputs, initial, None, True) if stepwise else cell(inputs)
        if not stepwise and not extension.REASON and case != "gru_reset":
            assert cell.path == "one compiled call"
        (outputs * data["cotangent"].transpose(0, 1)).sum().backward()

        assert_close(outputs, data["outputs"].transpose(0, 1), **tolerance)
        if "memory_final" in data:
            assert_close(state.memory, data["memory_final"], **tolerance)
        if inputs.requires_grad:
            assert_close(inputs.grad, data["grad_x"].transpose(0, 1), **tolerance)
        assert expected.keys() == dict(cell.named_parameters()).keys()
        for name, gradient in expected.items():
            assert_close(cell.get_parameter(name).grad, gradient, **tolerance, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize(("kind", "bias"), [("LSTM", True), ("GRU", False), ("GRU", True)])
def test_equations_are_those_of_torch_nn(kind, bias):
    cell = cells.get(kind.lower())(input_size=3, hidden_size=7, bias=bias).double()
    twin = getattr(torch.nn, kind)(3, 7, bias=bias, batch_first=True).double()
    twin.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    inputs = torch.randn(5, 11, 3, dtype=torch.float64)
    lengths = torch.tensor([11, 3, 7, 1, 10])
    cotangent = torch.randn(5, 11, 7, dtype=torch.float64)

    packed = torch.nn.utils.rnn.pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
    expected, final = torch.nn.utils.rnn.pad_packed_sequence(twin(packed)[0], batch_first=True)[0], twin(packed)[1]
    outputs, state = cell(inputs, lengths=lengths)
    assert_close(outputs, expected)
    for part, wanted in zip(state, final if kind == "LSTM" else (final,), strict=True):
        assert_close(part, wanted[0])
    (outputs * cotangent).sum().backward()
    (expected * cotangent).sum().backward()
    for name, parameter in cell.named_parameters():
        assert_close(parameter.grad, getattr(twin, f"{name}_l0").grad)
