"""The cells rnn, mgu, mrnn, grus and gru against their formulas, step by step and in one compiled call."""

import math

import pytest
import torch
from torch.testing import assert_close

from seqmem import cells
from seqmem.ops import extension

CHANNELS, SIZE = 3, 7

compiled = pytest.mark.skipif(bool(extension.REASON), reason=f"no compiled operators: {extension.REASON}")


def make(name, **arguments):
    torch.manual_seed(0)
    cell = cells.get(name)(CHANNELS, SIZE, **arguments).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.normal_(std=0.5)
    return cell


def mgu(cell, x, h, t):
    candidate = torch.tanh(x @ cell.weight_hx[:SIZE].T + h @ cell.weight_hh[:SIZE].T + cell.bias_hx[:SIZE] + cell.bias_hh)
    gate = torch.sigmoid(x @ cell.weight_hx[SIZE:].T + h @ cell.weight_hh[SIZE:].T + cell.bias_hx[SIZE:])
    return (1 - gate) * h + gate * candidate, gate


def mrnn(cell, x, h, t):
    candidate = torch.tanh(x @ cell.weight_hx[:SIZE].T + cell.bias_hx[:SIZE])
    gate = torch.sigmoid(x @ cell.weight_hx[SIZE:].T + cell.bias_hx[SIZE:] + h @ cell.weight_gh.T)
    return (1 - gate) * h + gate * candidate, gate


def rnn(cell, x, h, t):
    return torch.tanh(x @ cell.weight_hx.T + cell.bias_hx + h @ cell.weight_hh.T + cell.bias_hh), None


def grus(cell, x, h, t):
    gated, gate = mgu(cell, x, h, t)
    gate = gate / (t + 1)
    return (1 - gate) * h + gate * gated, gate


def gru(cell, x, h, t):
    of_x, of_h = cell.weight_ih.split(SIZE), cell.weight_hh.split(SIZE)
    b_x, b_h = ([0, 0, 0] if b is None else b.split(SIZE) for b in (cell.bias_ih, cell.bias_hh))
    r = torch.sigmoid(x @ of_x[0].T + b_x[0] + h @ of_h[0].T + b_h[0])
    z = torch.sigmoid(x @ of_x[1].T + b_x[1] + h @ of_h[1].T + b_h[1])
    if cell.reset_after:
        n = torch.tanh(x @ of_x[2].T + b_x[2] + r * (h @ of_h[2].T + b_h[2]))
    else:
        n = torch.tanh(x @ of_x[2].T + b_x[2] + (r * h) @ of_h[2].T + b_h[2])
    return (1 - z) * n + z * h, z


FORMULAS = {
    "mgu": (mgu, {}),
    "mrnn": (mrnn, {}),
    "grus": (grus, {}),
    "rnn": (rnn, {}),
    "gru": (gru, {}),
    "gru resets before": (gru, {"reset_after": False}),
    "gru resets before, no bias": (gru, {"reset_after": False, "bias": False}),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name):
    formula, arguments = FORMULAS[name]
    cell = make(name.partition(" ")[0], **arguments)
    inputs = torch.randn(5, 9, CHANNELS, dtype=torch.float64)
    h = torch.zeros(5, SIZE, dtype=torch.float64)
    expected = []
    for t, x in enumerate(inputs.unbind(1)):
        h, _ = formula(cell, x, h, t)
        expected.append(h)
    assert_close(cell(inputs)[0], torch.stack(expected, 1), rtol=1e-12, atol=1e-12)


def test_grus_closes_its_gate_by_each_rows_own_steps():
    cell = make("grus")
    inputs = torch.randn(3, 8, CHANNELS, dtype=torch.float64)
    _, state = cell(inputs[:, :4], lengths=torch.tensor([4, 0, 1]))
    assert state.step.tolist() == [4, 0, 1]
    outputs, _ = cell(inputs[:, 4:5], state)
    expected = torch.stack([grus(cell, inputs[row, 4], state.hidden[row], t)[0] for row, t in enumerate((4, 0, 1))])
    assert_close(outputs[:, 0], expected)


@compiled
@pytest.mark.parametrize(
    ("name", "hidden_activation", "lengths"),
    [
        ("mgu", "tanh", None),
        ("mgu", "relu", [9, 0, 4, 1, 8]),
        ("mrnn", "sigmoid", None),
        ("mrnn", "id", [9, 0, 4, 1, 8]),
        ("rnn", "tanh", None),
        ("rnn", "relu", [9, 0, 4, 1, 8]),
    ],
)
def test_one_compiled_call_has_the_values_and_gradients_of_the_loop(name, hidden_activation, lengths):
    cell = make(name, hidden_activation=hidden_activation)
    lengths = None if lengths is None else torch.tensor(lengths)
    inputs = torch.randn(5, 9, CHANNELS, dtype=torch.float64, requires_grad=True)
    hidden = torch.randn(5, SIZE, dtype=torch.float64, requires_grad=True)
    state = type(cell.initial_state(1))(hidden)
    cotangent = torch.randn(5, 9, SIZE, dtype=torch.float64)
    results, gradients = [], []
    for run in (cell.forward, lambda *given: cell.stepwise_forward(*given, fresh=False)):
        outputs, (after,) = run(inputs, state, lengths)
        results.append((outputs, after))
        loss = (outputs * cotangent).sum() + (after * cotangent[:, 0]).sum()
        gradients.append(torch.autograd.grad(loss, [inputs, hidden, *cell.parameters()]))
    assert cell.path == "one compiled call"
    assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)
    assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-12)


def test_which_sequences_are_compiled():
    inputs = torch.zeros(1, 2, CHANNELS, dtype=torch.float64)
    paths = {}
    for name, (_, arguments) in FORMULAS.items():
        cell = make(name.partition(" ")[0], **arguments)
        cell(inputs)
        paths[name] = cell.path
    assert paths["grus"] == "step by step (there is no compiled sequence of GRUS)"
    if not extension.REASON:
        assert (
            paths["gru"] == paths["gru resets before"] == paths["mgu"] == paths["mrnn"] == paths["rnn"] == "one compiled call"
        )


@pytest.mark.parametrize("name", ["mgu", "grus", "mrnn"])
def test_initialisation(name):
    torch.manual_seed(0)
    size, channels = 300, 100
    cell = cells.get(name)(channels, size, zero_bias_init=True)
    assert cell.weight_hx[:size].std().item() == pytest.approx(math.sqrt(2 / (channels + size)), rel=0.02)
    assert cell.weight_hx[size:].std().item() == pytest.approx(math.sqrt(1 / (channels + size)), rel=0.02)
    assert not cell.bias_hx[:size].any()
    assert 0.9 / math.sqrt(channels + size) < cell.bias_hx[size:].abs().max() <= 1 / math.sqrt(channels + size)
    of_gate = cell.weight_gh if name == "mrnn" else cell.weight_hh[size:]
    assert of_gate.std().item() == pytest.approx(math.sqrt(1 / (channels + size)), rel=0.02)
    if name != "mrnn":
        assert cell.weight_hh[:size].std().item() == pytest.approx(math.sqrt(1 / size), rel=0.02)
        assert 0.9 / math.sqrt(size) < cell.bias_hh.abs().max() <= 1 / math.sqrt(size)
    default = cells.get(name)(channels, size, hx_initializer="zero")
    assert not default.weight_hx[:size].any()
    assert 0.9 / math.sqrt(channels) < default.bias_hx[:size].abs().max() <= 1 / math.sqrt(channels)
    # Linear maps x -> c, [x, h] -> g, and but for mrnn h -> c, with their biases.
    count = size * (channels + 1) + size * (channels + size + 1) + (0 if name == "mrnn" else size * (size + 1))
    assert sum(parameter.numel() for parameter in cell.parameters()) == count
