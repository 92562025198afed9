"""Cells with a compiled sequence, and the comparison of their fused sequence with the loop, in value and in every gradient."""

import pytest
import torch
from torch.testing import assert_close

from seqmem.cells import GRU, LMU, LMUT, LSTM, RNN, ExpRNN, LagT, LagTS, LegS, LegT, LegTS, Orthogonal
from seqmem.cells.relu_gru import ReLUGRU
from seqmem.ops import extension
from tests.cells.paths import fused, stepwise

needs_compiled = pytest.mark.skipif(bool(extension.REASON), reason=f"no compiled operators: {extension.REASON}")

CELLS = {
    "legs": (LegS, {}),
    "legs order": (LegS, {"memory_order": 19}),
    "legs memories": (LegS, {"memory_size": 3, "memory_order": 6, "memory_activation": "tanh"}),
    "legs all on": (LegS, {"architecture": {"um": True, "hh": True}, "memory_size": 2, "memory_output": True}),
    "legs ungated": (LegS, {"gate": "N", "architecture": {"uh": False, "hx": False}}),
    "legs hidden only": (LegS, {"architecture": {"hx": False, "hm": False, "hh": True, "bias": False}, "memory_output": True}),
    "legs input only": (LegS, {"architecture": {"uh": False, "hm": False, "bias": False}}),
    "legs memory feeds itself": (LegS, {"architecture": {"ux": False, "uh": False, "um": True, "hm": False, "hh": True}}),
    "legs no input": (LegS, {"architecture": {"ux": False, "hx": False}}),
    "legs forward": (LegS, {"discretization": "forward", "memory_order": 3, "init_t": 4, "memory_activation": "sigmoid"}),
    "legs backward": (LegS, {"discretization": "backward", "max_length": 5, "memory_activation": "relu"}),
    "legs relu": (LegS, {"hidden_activation": "relu", "init_t": 2}),
    "legs sigmoid": (LegS, {"hidden_activation": "sigmoid", "gate": "N"}),
    "legs id": (LegS, {"hidden_activation": "id"}),
    "legs alpha": (LegS, {"discretization": 0.3, "memory_order": 18}),
    "legts": (LegTS, {"memory_size": 2, "memory_order": 9}),
    "legts backward": (LegTS, {"discretization": "backward", "init_t": 3, "memory_order": 17}),
    "lagts": (LagTS, {"measure_args": {"beta": 0.5}, "memory_size": 2}),
    "legt": (LegT, {"memory_size": 2, "memory_order": 35, "architecture": {"um": True}, "memory_output": True}),
    "lmut": (LMUT, {"dt": 0.1, "discretization": "bilinear", "gate": "N"}),
    "lagt": (LagT, {"measure_args": {"beta": 2.0}, "memory_order": 5}),
    "lmu": (LMU, {"theta": 7.0, "memory_order": 6}),
    "lstm": (LSTM, {}),
    "lstm no bias": (LSTM, {"bias": False}),
    "gru": (GRU, {}),
    "gru no bias": (GRU, {"bias": False}),
    "gru resets before": (GRU, {"reset_after": False}),
    "gru resets before, no bias": (GRU, {"reset_after": False, "bias": False}),
    "relu_gru": (ReLUGRU, {}),
    "rnn": (RNN, {}),
    "rnn relu": (RNN, {"hidden_activation": "relu"}),
    "exprnn": (ExpRNN, {}),
    "orthogonal": (Orthogonal, {"method": "cayley"}),
}
SIZES = {
    "one of all": (1, 1, 1, 1),
    "odd": (3, 7, 2, 7),
    "tails": (17, 5, 18, 33),
    "whole vectors": (2, 6, 16, 32),
    "more weights than a block of a product": (2, 3, 20, 270),
}
OPERATORS = {
    "memory": ["legs all on", "legs", "legts", "legt"],
    "lstm": ["lstm"],
    "gru": ["gru", "gru resets before"],
    "modrelu": ["exprnn"],
}
"""Cells of each compiled operator; those of the memory differ in the structure of A, those of the GRU in the product of n."""

every_cell = pytest.mark.parametrize("cell", CELLS)
every_operator = pytest.mark.parametrize("names", OPERATORS.values(), ids=OPERATORS)
families = pytest.mark.parametrize(
    "names",
    [
        [name for name in CELLS if name.split()[0] in family]
        for family in (
            ["legs"],
            ["legts", "lagts"],
            ["legt", "lmut", "lagt", "lmu"],
            ["lstm", "gru", "relu_gru"],
            ["rnn", "exprnn", "orthogonal"],
        )
    ],
    ids=["legs", "stretched", "fixed step", "gates", "plain"],
)


def make(name, channels, size, dtype=torch.float64):
    torch.manual_seed(0)
    kind, arguments = CELLS[name]
    cell = kind(channels, hidden_size=size, **arguments).to(dtype)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.normal_(std=0.5 / parameter.shape[-1] ** 0.5)
    return cell


def random_state(cell, batch, together=False):
    """A state whose rows are at different steps, or at the same one."""
    state = [torch.randn_like(part) if part.is_floating_point() else part for part in cell.initial_state(batch)]
    if not state[-1].is_floating_point():
        state[-1] = torch.full((batch,), 3) if together else torch.arange(batch) * 2
    return type(cell.initial_state(0))(*state)


def run(cell, inputs, lengths=None, state=None, loop=False):
    """Outputs and state, and the gradients of a random sum of both: of inputs, state and every parameter."""
    fresh = state is None
    state = cell.initial_state(len(inputs)) if state is None else state
    state = type(state)(*(part.clone().requires_grad_() if part.is_floating_point() else part for part in state))
    inputs = inputs.clone().requires_grad_()
    outputs, final = (stepwise if loop else fused)(cell, inputs, state, lengths, fresh)
    results = {"outputs": outputs} | dict(zip(final._fields, final, strict=True))
    noise = torch.Generator().manual_seed(1)
    loss = sum(
        (part * torch.randn(part.shape, generator=noise, dtype=torch.float64).to(part.dtype)).sum()
        for part in results.values()
        if part.is_floating_point()
    )
    leaves = {"inputs": inputs} | {f"state {k}": part for k, part in enumerate(state) if part.is_floating_point()}
    leaves |= dict(cell.named_parameters())
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    for (name, leaf), grad in zip(leaves.items(), grads, strict=True):
        results[f"gradient of {name}"] = torch.zeros_like(leaf) if grad is None else grad
    return {name: value.detach() for name, value in results.items()}


def assert_same(given, expected, relative=1e-10):
    assert given.keys() == expected.keys()
    for name, value in expected.items():
        scale = value.abs().max().item() if value.numel() > 0 and value.is_floating_point() else 0
        assert_close(
            given[name], value.to(given[name].dtype), rtol=0, atol=relative * scale, msg=lambda text, n=name: f"{n}: {text}"
        )


def assert_equals_the_loop(name, size):
    batch, steps, channels, hidden = SIZES[size]
    cell = make(name, channels, hidden)
    inputs = torch.randn(batch, steps, channels, dtype=torch.float64)
    assert_same(run(cell, inputs), run(cell, inputs, loop=True))


def assert_float32_to_rounding(name):
    cell = make(name, 3, 37)
    inputs = torch.randn(29, 60, 3, dtype=torch.float64)
    expected = run(cell, inputs, loop=True)
    rounded = 10 if isinstance(cell, Orthogonal) else 1  # the matrix is a function of its parameter, in float32, too
    assert_same(run(cell.float(), inputs.float()), expected, relative=4e-5 * rounded)


def error(given, expected):
    """Relative, in the Euclidean norm of each result."""
    return {name: ((given[name] - value).norm() / value.norm().clamp(min=1e-6)).item() for name, value in expected.items()}
