"""The real-gated linear recurrent unit: golden vectors, documents, the bounded slope of its root, and its initial values."""

import pytest
import torch
from torch.autograd import gradgradcheck
from torch.testing import assert_close

from seqmem.errors import UserError
from seqmem.layers import by_head
from seqmem.layers.rglru import RGLRU
from seqmem.ops.diagonal_scan import diagonal_scan_reference
from seqmem.ops.rg_lru import capped_root, rg_lru_terms
from tests import successors

CORE = {
    "decay": "a_param",
    "weight_recurrence": "a_gate.w",
    "bias_recurrence": "a_gate.b",
    "weight_gate": "input_gate.w",
    "bias_gate": "input_gate.b",
}
BLOCK = {ours: f"rg_lru.{original}" for ours, original in CORE.items()} | {
    "weight_branch": "linear_y.weight",
    "bias_branch": "linear_y.bias",
    "weight_in": "linear_x.weight",
    "bias_in": "linear_x.bias",
    "weight_out": "linear_out.weight",
    "bias_out": "linear_out.bias",
    "bias_conv": "conv_1d.b",
}


def unit(case, parameters, inputs, initial):
    """The unit alone, from the positions of the steps in their documents."""

    def gate(name):
        parts = inputs.unflatten(-1, parameters[f"{name}.b"].shape)
        return (torch.einsum("btni,nio->btno", parts, parameters[f"{name}.w"]) + parameters[f"{name}.b"]).flatten(-2)

    terms = rg_lru_terms(inputs, gate("a_gate"), gate("input_gate"), parameters["a_param"], case["segment_pos"] == 0)
    return diagonal_scan_reference(*terms, initial)


@pytest.mark.parametrize("name", successors.names("rglru"))
def test_the_unit_is_the_original_one(name):
    case = successors.case(name)
    inputs = case["x"].requires_grad_()
    parameters = {key: value.requires_grad_() for key, value in case.named("param").items()}
    initial = {key: value.requires_grad_() for key, value in case.named("state0").items()}
    outputs, last = unit(case, parameters, inputs, initial.get("h"))
    successors.assert_near(outputs, case["outputs"], 1e-9)
    successors.assert_near(last, case["state_final.h"], 1e-9)
    (outputs * case["cotangent"]).sum().backward()
    successors.assert_near(inputs.grad, case["grad_x"], 1e-9)
    for key, value in parameters.items():
        successors.assert_near(value.grad, case[f"grad.{key}"], 1e-9)
    if initial:
        successors.assert_near(initial["h"].grad, case["grad_state0.h"], 1e-9)


def block(case) -> RGLRU:
    settings = case.settings
    layer = RGLRU(
        settings["input_size"], settings["hidden_size"], settings["inner_size"], settings["heads"], settings["conv_kernel"]
    ).double()
    values = {ours: case[f"param.{original}"] for ours, original in BLOCK.items()}
    layer.load_state_dict(values | {"weight_conv": case["param.conv_1d.w"].T})
    return layer


@pytest.mark.parametrize("dense_channels", [0, 1000])
@pytest.mark.parametrize("name", successors.names("griffin_recurrent"))
def test_the_block_is_the_original_one(monkeypatch, name, dense_channels):
    monkeypatch.setattr(by_head, "DENSE_CHANNELS", dense_channels)
    case = successors.case(name)
    layer, inputs = block(case), case["x"].requires_grad_()
    outputs, state = layer.documents(inputs, case["segment_pos"] == 0)
    successors.assert_near(outputs, case["outputs"], 1e-9)
    successors.assert_near(state.hidden, case["state_final.h"], 1e-9)
    successors.assert_near(state.inputs, case["state_final.conv"], 1e-9)
    (outputs * case["cotangent"]).sum().backward()
    successors.assert_near(inputs.grad, case["grad_x"], 1e-9)
    for ours, original in BLOCK.items():
        successors.assert_near(layer.get_parameter(ours).grad, case[f"grad.{original}"], 1e-9)
    successors.assert_near(layer.weight_conv.grad.T, case["grad.conv_1d.w"], 1e-9)


def test_the_first_step_without_a_state_begins_a_document():
    case = successors.case("griffin_recurrent")
    layer = block(case).requires_grad_(False)
    successors.assert_near(layer(case["x"])[0], case["outputs"], 1e-9)
    outputs, state = [], layer.initial_state(len(case["x"]))
    for step in case["x"].unbind(1):
        output, state = layer.step(step, state)
        outputs.append(output)
    successors.assert_near(torch.stack(outputs, 1), case["outputs_step"], 1e-9)


def test_documents_do_not_influence_each_other():
    """Each as if it were alone, with whole sequences, with halves and with lengths."""
    torch.manual_seed(0)
    layer, inputs = RGLRU(3, 6, inner_size=8).double().requires_grad_(False), torch.randn(2, 11, 3, dtype=torch.float64)
    starts = torch.zeros(2, 11, dtype=torch.bool)
    starts[0, 4] = starts[1, 6] = starts[1, 9] = True
    outputs, state = layer.documents(inputs, starts)
    for row, (begin, end) in ((0, (0, 4)), (0, (4, 11)), (1, (0, 6)), (1, (6, 9)), (1, (9, 11))):
        assert_close(outputs[row, begin:end], layer(inputs[row : row + 1, begin:end])[0][0])
    first, half = layer.documents(inputs[:, :6], starts[:, :6])
    second, after = layer.documents(inputs[:, 6:], starts[:, 6:], half)
    assert_close(torch.cat([first, second], 1), outputs)
    assert_close(after, state)
    lengths = torch.tensor([11, 7])
    shorter, last = layer.documents(inputs, starts, lengths=lengths)
    assert_close(shorter[1, :7], outputs[1, :7])
    assert not shorter[1, 7:].any()
    assert_close(last.hidden[1], layer(inputs[1:, 6:7])[1].hidden[0])
    with pytest.raises(UserError, match=r"RGLRU: got starts of shape \(2, 10\) and type torch.bool, expected \(2, 11\)"):
        layer.documents(inputs, starts[:, 1:])


def test_a_row_without_a_step_still_begins_its_document():
    torch.manual_seed(0)
    layer, inputs = RGLRU(3, 6).double().requires_grad_(False), torch.randn(2, 4, 3, dtype=torch.float64)
    _, state = layer(inputs, lengths=torch.tensor([4, 0]))
    assert state.started.tolist() == [1, 0]
    assert_close(layer(inputs, state)[0][1], layer(inputs)[0][1])


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # torch's forward mode
@pytest.mark.parametrize("transform", [False, True], ids=["function", "operations"])
def test_the_slope_of_the_root_is_at_most_1000(transform):
    values = torch.tensor([0.0, 1e-12, 2.4e-7, 2.6e-7, 1e-3, 1.0], dtype=torch.float64)
    if transform:
        slopes = torch.func.grad(lambda given: capped_root(given).sum())(values)
        root, tangent = torch.func.jvp(capped_root, (values,), (torch.ones_like(values),))
        assert_close(tangent, slopes)
    else:
        given = values.clone().requires_grad_()
        root = capped_root(given)
        [slopes] = torch.autograd.grad(root.sum(), given)
    assert_close(root.detach(), values.sqrt(), rtol=0, atol=0)
    assert_close(slopes, torch.tensor([1000.0, 1000, 1000, *(0.5 / values[3:].sqrt())], dtype=torch.float64))
    assert gradgradcheck(capped_root, torch.tensor([0.01, 0.5], dtype=torch.float64, requires_grad=True))


def test_initial_values_are_drawn_in_at_least_float32():
    """Those of seeded trainings stay the same; in bfloat16 a square near 1 would have few values."""
    layer = RGLRU(2, 1024)
    torch.manual_seed(0)
    layer.reset_parameters()
    torch.manual_seed(0)
    squares = torch.empty(1024).uniform_(0.9**2, 0.999**2)
    assert torch.equal(layer.decay, torch.log(squares.rsqrt() - 1))
    narrow = layer.bfloat16()
    torch.manual_seed(0)
    narrow.reset_parameters()
    assert torch.equal(narrow.decay, torch.log(squares.double().rsqrt() - 1).bfloat16())
    assert len(narrow.decay.unique()) > 150


def test_initial_values():
    torch.manual_seed(0)
    layer = RGLRU(64, 32, inner_size=4096, num_heads=8)
    radius = torch.exp(-torch.nn.functional.softplus(layer.decay.detach()))
    assert 0.9 <= radius.min() <= 0.9005
    assert 0.9985 <= radius.max() <= 0.9991
    assert_close(radius.square().mean(), torch.tensor((0.9**2 + 0.999**2) / 2), rtol=0, atol=0.005)
    for weight, fan in (
        (layer.weight_recurrence, 512),
        (layer.weight_gate, 512),
        (layer.weight_in, 64),
        (layer.weight_branch, 64),
        (layer.weight_out, 4096),
        (layer.weight_conv, 400),
    ):
        assert_close(weight.std() * fan**0.5, torch.tensor(1.0), rtol=0, atol=0.03)
    assert not any(value.any() for name, value in layer.named_parameters() if name.startswith("bias"))


def test_sizes():
    layer = RGLRU(6, 10, inner_size=8, num_heads=2, kernel_size=3)
    unit = 8 + 2 * (8 * 8 // 2 + 8)
    assert sum(value.numel() for value in layer.parameters()) == unit + 2 * (6 * 8 + 8) + 8 * 3 + 8 + 8 * 10 + 10
    assert [len(RGLRU(3, size).weight_gate) for size in (6, 8, 24, 64, 96)] == [1, 2, 4, 16, 16]
    assert RGLRU(3, 4, kernel_size=1)(torch.randn(2, 5, 3))[1].inputs.shape == (2, 0, 4)
    with pytest.raises(UserError, match="num_heads: got 3, expected a divisor of the inner size 8"):
        RGLRU(3, 8, num_heads=3)
