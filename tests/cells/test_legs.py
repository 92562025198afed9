"""LegS against its formula written out densely, for every switch."""

import math
import time

import pytest
import torch
from torch.testing import assert_close

from seqmem.cells import LagTS, LegS, LegTS
from seqmem.errors import UserError

torch.manual_seed(0)


def dense_matrices(order):
    """A and B of HiPPO-LegS (theorem 2), entry by entry."""
    a = torch.zeros(order, order, dtype=torch.float64)
    b = torch.zeros(order, dtype=torch.float64)
    for n in range(order):
        b[n] = math.sqrt(2 * n + 1)
        for k in range(n + 1):
            a[n, k] = -(n + 1) if n == k else -math.sqrt((2 * n + 1) * (2 * k + 1))
    return a, b


def dense_step(memory, u, t, discretization):
    """c' = A c / t + B u / t over one step of length 1, discretized densely."""
    a, b = dense_matrices(memory.shape[-1])
    eye = torch.eye(len(a), dtype=torch.float64)
    bu = u.unsqueeze(-1) * b
    if discretization == "forward":
        return memory + (memory @ a.T + bu) / t
    if discretization == "backward":
        return torch.linalg.solve(eye - a / t, (memory + bu / t).unsqueeze(-1)).squeeze(-1)
    if discretization == "bilinear":
        right = memory @ (eye + a / (2 * t)).T + bu / t
        return torch.linalg.solve(eye - a / (2 * t), right.unsqueeze(-1)).squeeze(-1)
    transition = torch.matrix_exp(a * math.log((t + 1) / t))
    return memory @ transition.T + bu @ (torch.linalg.solve(a, transition - eye)).T


def dense_run(cell, inputs):
    """The cell's recurrence with every matrix written out."""
    activations = {"id": lambda x: x, "tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid}
    hidden = inputs.new_zeros(len(inputs), cell.hidden_size)
    memory = inputs.new_zeros(len(inputs), cell.memory_size, cell.memory_order)
    outputs = []
    for k in range(inputs.shape[1]):
        x = inputs[:, k]
        u = sum(
            term
            for term in (
                x @ cell.weight_ux.T if cell.weight_ux is not None else 0,
                hidden @ cell.weight_uh.T if cell.weight_uh is not None else 0,
                torch.einsum("bmn,mn->bm", memory, cell.weight_um) if cell.weight_um is not None else 0,
                cell.bias_u if cell.bias_u is not None else 0,
            )
        )
        u = activations[cell.memory_activation](u)
        t = k + cell.init_t
        if cell.max_length is not None:
            t = min(t, cell.max_length)
        if t == 0:
            memory = torch.zeros_like(memory)
            memory[..., 0] = u
        else:
            memory = dense_step(memory, u, t, cell.discretization)
        read = sum(
            term
            for term in (
                x @ cell.weight_hx.T if cell.weight_hx is not None else 0,
                memory.flatten(1) @ cell.weight_hm.T if cell.weight_hm is not None else 0,
                hidden @ cell.weight_hh.T if cell.weight_hh is not None else 0,
                cell.bias_h if cell.bias_h is not None else 0,
            )
        )
        candidate = activations[cell.hidden_activation](read[:, : cell.hidden_size])
        gate = torch.sigmoid(read[:, cell.hidden_size :]) if cell.gate == "G" else 1
        hidden = (1 - gate) * hidden + gate * candidate
        outputs.append(torch.cat([hidden, memory.flatten(1)], -1) if cell.memory_output else hidden)
    return torch.stack(outputs, 1), memory


def randomized(**arguments):
    cell = LegS(input_size=3, **{"hidden_size": 7, "memory_order": 5, **arguments}).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.normal_(std=0.4)
    return cell


def assert_equals_formula(cell, steps=17):
    inputs = torch.randn(3, steps, 3, dtype=torch.float64)
    outputs, state = cell(inputs)
    expected, memory = dense_run(cell, inputs)
    assert_close(outputs, expected, rtol=1e-10, atol=1e-10)
    assert_close(state.memory, memory, rtol=1e-10, atol=1e-10)
    names, values = zip(*cell.named_parameters(), strict=True)
    cotangent = torch.randn_like(expected)
    for name, ours, wanted in zip(
        names,
        torch.autograd.grad((outputs * cotangent).sum(), values, allow_unused=True, materialize_grads=True),
        torch.autograd.grad((expected * cotangent).sum(), values, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        assert_close(ours, wanted, rtol=1e-8, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize(
    ("discretization", "init_t", "max_length"),
    [
        ("forward", 0, None),
        ("forward", 4, 6),
        ("backward", 0, 6),
        ("backward", 1, None),
        ("bilinear", 0, None),
        ("bilinear", 1, 6),
        ("zoh", 0, 6),
        ("zoh", 4, None),
    ],
)
def test_discretizations_and_first_step_rules(discretization, init_t, max_length):
    assert_equals_formula(randomized(discretization=discretization, init_t=init_t, max_length=max_length))


@pytest.mark.parametrize(
    ("architecture", "gate"),
    [
        ({"um": True}, "N"),
        ({"ux": False}, "G"),
        ({"uh": False}, "N"),
        ({"ux": False, "uh": False, "um": True}, "G"),
        ({"hh": True, "bias": False}, "N"),
        ({"hx": False}, "G"),
        ({"hm": False}, "N"),
        ({"hx": False, "hm": False, "hh": True}, "G"),
        ({"um": True, "hh": True}, "G"),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(f"{name}={on}" for name, on in value.items()),
)
def test_architecture_switches(architecture, gate):
    assert_equals_formula(randomized(architecture=architecture, gate=gate, memory_size=2))


def test_activations():
    for memory, hidden in (("tanh", "relu"), ("relu", "id"), ("sigmoid", "sigmoid"), ("id", "tanh")):
        assert_equals_formula(randomized(memory_activation=memory, hidden_activation=hidden), steps=9)


def test_memory_sizes_and_memory_output():
    for memory_size, memory_order in ((1, 1), (3, 4), (2, -1)):
        cell = randomized(memory_size=memory_size, memory_order=memory_order, memory_output=True)
        assert cell.output_size == 7 + memory_size * (7 if memory_order == -1 else memory_order)
        assert_equals_formula(cell)


def test_carried_rows_may_be_at_different_steps():
    cell = randomized(init_t=0, max_length=9)
    inputs = torch.randn(3, 12, 3, dtype=torch.float64)
    _, state = cell(inputs[:, :5], lengths=torch.tensor([5, 0, 2]))
    assert state.step.tolist() == [5, 0, 2]
    outputs, _ = cell(inputs[:, 5:], state)
    for row, length in enumerate([5, 0, 2]):
        expected, _ = dense_run(cell, torch.cat([inputs[row, :length], inputs[row, 5:]])[None])
        assert_close(outputs[row], expected[0, length:])


def test_parameter_count_of_the_papers_permuted_mnist_network():
    cell = LegS(input_size=1, hidden_size=512)
    assert sum(parameter.numel() for parameter in cell.parameters()) == 514 + 2 * (512 * 513 + 512)


def test_starts_fast_and_holds_no_matrices():
    start = time.perf_counter()
    cell = LegS(input_size=1, hidden_size=512)
    assert time.perf_counter() - start < 0.1
    assert not list(cell.buffers())


def test_initializers():
    cell = LegS(
        input_size=3,
        hidden_size=200,
        architecture={"um": True, "hh": True},
        initializers={"ux": "one", "uh": "zero", "hm": "zero", "hh": "orthogonal"},
        zero_bias_init=True,
    )
    assert (cell.weight_ux == 1).all()
    assert not cell.weight_uh.any()
    assert not cell.weight_um.any()
    assert not cell.weight_hm[:200].any()
    assert cell.weight_hm[200:].any()
    assert not cell.bias_h[:200].any()
    assert 0.9 / math.sqrt(403) < cell.bias_h[200:].abs().max() <= 1 / math.sqrt(403)
    assert not cell.bias_u.any()
    assert 0 < LegS(input_size=3, hidden_size=200).bias_u.abs() <= 1 / math.sqrt(203)
    assert_close(cell.weight_hh[:200] @ cell.weight_hh[:200].T, torch.eye(200), rtol=0, atol=1e-4)
    assert cell.weight_hx[:200].std().item() == pytest.approx(math.sqrt(2 / 203), rel=0.1)
    assert cell.weight_hm[200:].std().item() == pytest.approx(math.sqrt(1 / 403), rel=0.1)


def test_wrong_arguments_are_named():
    for arguments, message in (
        ({"memory_order": 0}, "memory_order: got 0, expected greater than 0 or -1"),
        ({"discretization": "bilnear"}, "did you mean 'bilinear'"),
        ({"architecture": {"ux": False, "uh": False}}, "ux, uh and um all off"),
        ({"architecture": {"hx": False, "hm": False}}, "hx, hm and hh all off"),
        ({"architecture": {"xu": True}}, "architecture.xu: architecture has no key 'xu'; choose from: ux, uh"),
        ({"initializers": {"hx": "xavier"}}, "hx.*'xavier'.*did you mean 'xavier_normal'"),
        ({"max_length": 0}, "max_length: got 0, expected"),
        ({"init_t": -1}, "init_t: got -1, expected"),
    ):
        with pytest.raises(UserError, match=message):
            LegS(input_size=2, **arguments)


@pytest.mark.parametrize("kind", [LegS, LegTS, LagTS])
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # from torch._dynamo
def test_a_carried_state_compiles_to_one_graph(kind):
    torch.compiler.reset()
    cell, inputs = kind(3, hidden_size=4).double(), torch.randn(3, 5, 3, dtype=torch.float64)
    _, together = cell(inputs)
    _, apart = cell(inputs, lengths=torch.tensor([5, 2, 0]))
    compiled = torch.compile(cell, backend="aot_eager", fullgraph=True)
    for state in (together, apart):
        state = type(state)(*(part.detach() for part in state))
        for expected, found in zip(cell(inputs, state), compiled(inputs, state), strict=True):
            assert_close(found, expected)
