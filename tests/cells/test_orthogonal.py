"""exprnn and orthogonal: Q follows its formula and stays orthogonal in training, changes of basis and checkpoints."""

import copy
import math
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.nn.utils.parametrize import cached
from torch.testing import assert_close

from seqmem.cells.orthogonal import ExpRNN, Orthogonal, TrivializedMatrix
from seqmem.errors import UserError
from seqmem.ops.activations import modrelu

METHODS = ("exprnn", "dtriv", "cayley")
every_method = pytest.mark.parametrize("method", METHODS)
both = pytest.mark.parametrize("kind", [ExpRNN, Orthogonal])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def skew(cell):
    below = cell.recurrent.parametrizations.weight.original.tril(-1)
    return below - below.T


def off_identity(Q):
    return (Q.T @ Q - torch.eye(len(Q), dtype=Q.dtype)).abs().max().item()


def train(cell, optimizer, updates, seed=0, outputs_of=None):
    """Train the cell to remember its first input."""
    generator = torch.Generator().manual_seed(seed)
    dtype = cell.weight_hx.dtype
    for _ in range(updates):
        inputs = torch.randn(4, 6, cell.input_size, generator=generator, dtype=dtype)
        loss = ((outputs_of or cell)(inputs)[0][:, -1, : cell.input_size] - inputs[:, 0]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_modrelu():
    x = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0], dtype=torch.float64)
    assert modrelu(x, torch.tensor(-1.0)).tolist() == [-1, 0, 0, 0, 1]
    assert modrelu(x, torch.tensor(1.0)).tolist() == [-3, -1.5, 0, 1.5, 3]
    assert torch.equal(modrelu(x, torch.tensor(0.0)), x)


each = pytest.mark.parametrize(("kind", "method"), [(ExpRNN, "exprnn"), (Orthogonal, "dtriv"), (ExpRNN, "cayley")])


@each
def test_formula(kind, method):
    cell = kind(3, 7, method=method, K=2).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.normal_(std=0.5)
    if method == "dtriv":
        cell.recurrent.rebase()
        with torch.no_grad():
            cell.recurrent.parametrizations.weight.original.normal_(std=0.5)
    A, eye = skew(cell), torch.eye(7, dtype=torch.float64)
    if method == "cayley":
        Q = torch.linalg.solve((eye - A / 2).T, (eye + A / 2).T).T
    else:
        values, vectors = torch.linalg.eig(A)
        Q = (vectors * values.exp() @ torch.linalg.inv(vectors)).real
        if method == "dtriv":
            base = cell.recurrent.parametrizations.weight[1].base
            assert off_identity(base) < 1e-14
            assert (base - eye).abs().max() > 0.1
            Q = base @ Q
    assert_close(cell.recurrent.weight, Q, rtol=1e-12, atol=1e-12)
    inputs = torch.randn(5, 9, 3, dtype=torch.float64)
    hidden, expected = torch.zeros(5, 7, dtype=torch.float64), []
    for x in inputs.unbind(1):
        z = x @ cell.weight_hx.T + hidden @ Q.T + (cell.bias_hx if kind is ExpRNN else 0)
        hidden = z.sign() * (z.abs() + cell.bias_modrelu).clamp(min=0)
        expected.append(hidden)
    assert_close(cell(inputs)[0], torch.stack(expected, 1), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("method", "init", "low", "high"), [
    ("dtriv", "cayley", 0, 1),
    ("cayley", "cayley", 0, math.pi / 2),
    ("exprnn", "henaff", 0, math.pi),
    ("cayley", "henaff", 0, 2 * math.atan(math.pi)),
])  # fmt: skip
def test_initial_angles(method, init, low, high):
    size = 401
    Q = Orthogonal(3, size, method=method, init=init).double().recurrent.weight.detach()
    angles = torch.linalg.eigvals(Q).angle().abs().sort().values
    assert angles[0] == pytest.approx(0, abs=1e-6)  # a rotation in an odd number of dimensions has an axis
    assert_close(angles[1::2], angles[2::2])
    angles = angles[1::2]
    assert low <= angles.min() < low + 0.03 * (high - low)
    assert high - 0.03 * (high - low) < angles.max() <= high + 1e-6
    median = {"exprnn": math.tan(math.pi / 8), "dtriv": math.tan(math.pi / 8), "cayley": math.pi / 4}[method]
    if init == "henaff":
        median = math.pi / 2 if method == "exprnn" else 2 * math.atan(math.pi / 2)
    assert angles.median().item() == pytest.approx(median, abs=0.1 * high)


def test_small_sizes():
    for method in METHODS:
        for size in (1, 2):
            cell = Orthogonal(3, size, method=method).double()
            assert off_identity(cell.recurrent.weight) < 1e-14
            assert cell(torch.randn(2, 4, 3, dtype=torch.float64))[0].shape == (2, 4, size)


@pytest.mark.parametrize(
    ("kind", "method", "optimizer"),
    [(ExpRNN, "exprnn", torch.optim.Adam), (Orthogonal, "dtriv", torch.optim.SGD), (Orthogonal, "cayley", torch.optim.Adam)],
)
def test_stays_orthogonal_in_training(kind, method, optimizer):
    cell = kind(3, 33, method=method, K=4)
    before = cell.recurrent.weight.detach().clone()
    train(cell, optimizer(cell.parameters(), lr=0.03), 50)
    after = cell.recurrent.weight.detach()
    assert (after - before).abs().max() > 0.05
    assert off_identity(after) < 1e-5
    assert torch.linalg.det(after).item() == pytest.approx(1, abs=1e-4)


def test_learns_to_remember_its_first_input():
    cell = Orthogonal(2, 16, method="dtriv", K=10).double()
    optimizer = torch.optim.Adam(cell.parameters(), lr=0.01)
    inputs = torch.randn(64, 6, 2, dtype=torch.float64)
    error = lambda: (cell(inputs)[0][:, -1, :2] - inputs[:, 0]).square().mean().item()  # noqa: E731
    before = error()
    train(cell, optimizer, 300)
    assert error() < 0.2 * min(before, 1)


def by_steps(cell):
    """The outputs of a loop over the cell's steps."""

    def outputs_of(inputs):
        state, outputs = None, []
        for x in inputs.unbind(1):
            output, state = cell.step(x, state)
            outputs.append(output)
        return torch.stack(outputs, 1), state

    return outputs_of


ENTRIES = {
    "whole": lambda cell: cell,
    "stepwise": lambda cell: lambda inputs: cell.stepwise_forward(inputs, cell.initial_state(len(inputs)), None, True),
    "steps": by_steps,
}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_basis_changes_after_every_k_updates(entry):
    """Against dynamic trivialization written out."""
    cell = Orthogonal(3, 5, method="dtriv", K=3).double()
    outputs_of = entry(cell)
    train(cell, torch.optim.Adam(cell.parameters(), lr=0.1), 11, outputs_of=outputs_of)
    outputs_of(torch.zeros(1, 1, 3, dtype=torch.float64))  # the eleventh update is counted with the next sequence

    torch.manual_seed(0)
    twin = Orthogonal(3, 5, method="exprnn").double()
    parameter = twin.recurrent.parametrizations.weight.original
    base = torch.eye(5, dtype=torch.float64)
    optimizer = torch.optim.Adam(twin.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(0)
    for update in range(1, 12):
        inputs = torch.randn(4, 6, 3, generator=generator, dtype=torch.float64)
        Q, hidden = base @ torch.matrix_exp(skew(twin)), torch.zeros(4, 5, dtype=torch.float64)
        for x in inputs.unbind(1):
            hidden = modrelu(x @ twin.weight_hx.T + hidden @ Q.T, twin.bias_modrelu)
        optimizer.zero_grad()
        (hidden[:, :3] - inputs[:, 0]).square().mean().backward()
        optimizer.step()
        if update % 3 == 0:
            with torch.no_grad():
                base = base @ torch.matrix_exp(skew(twin))
                parameter.zero_()
    assert cell.recurrent.updates == 11
    assert (base - torch.eye(5)).abs().max() > 0.1
    assert_close(cell.recurrent.parametrizations.weight[1].base, base, rtol=0, atol=1e-12)
    assert_close(cell.recurrent.parametrizations.weight.original, parameter, rtol=0, atol=1e-12)


def test_only_updates_in_training_are_counted():
    cell = Orthogonal(3, 5, method="dtriv", K=2).double()
    inputs = torch.randn(2, 4, 3, dtype=torch.float64)
    optimizer = torch.optim.SGD(cell.parameters(), lr=0.1)
    cell(inputs)
    cell(inputs)[0].sum().backward()
    assert cell.recurrent.updates == 0
    optimizer.step()
    cell.eval()(inputs)
    with torch.no_grad():
        cell.train()(inputs)
    assert cell.recurrent.updates == 0
    cell(inputs)
    cell(inputs)
    assert cell.recurrent.updates == 1


def test_a_state_dict_has_the_last_update_and_loading_it_is_none():
    cell, loaded = (Orthogonal(3, 5, method="dtriv", K=2).double() for _ in range(2))
    optimizer = torch.optim.SGD(cell.parameters(), lr=0.1)
    inputs = torch.randn(2, 4, 3, dtype=torch.float64)
    for updates in (1, 2, 3):
        cell(inputs)[0].sum().backward()
        optimizer.step()
        loaded.load_state_dict(cell.state_dict())
        for each in (cell, loaded):
            each(inputs)
            assert each.recurrent.updates == updates
    assert torch.equal(cell(inputs)[0], loaded(inputs)[0])


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_updates_of_a_fused_optimizer_are_counted(optimizer):
    """It leaves the version of a tensor alone."""
    inputs, bases = torch.randn(2, 4, 3), []
    for fused in (False, True):
        torch.manual_seed(0)
        cell, other = (Orthogonal(3, 5, method="dtriv", K=3) for _ in range(2))
        steps = optimizer(cell.parameters(), lr=0.01, fused=fused)
        for _ in range(7):
            cell.zero_grad()
            (cell(inputs)[0] * other(inputs)[0].detach()).sum().backward()
            steps.step()
        cell(inputs)
        bases.append(cell.recurrent.parametrizations.weight[1].base)
        assert (cell.recurrent.updates, other.recurrent.updates) == (7, 0)
        cell.zero_grad()
        steps.step()  # without a gradient
        cell(inputs)
        assert cell.recurrent.updates == 7
    assert_close(*bases)
    assert not torch.equal(bases[0], torch.eye(5))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda cell: pickle.loads(pickle.dumps(cell))])
def test_a_copy_has_the_last_update(copied):
    cell, inputs = Orthogonal(3, 5, method="dtriv", K=2), torch.randn(2, 4, 3)
    optimizer = torch.optim.SGD(cell.parameters(), lr=0.1)
    for updates in (1, 2):
        cell(inputs)[0].sum().backward()
        optimizer.step()
        other = copied(cell)
        for each in (cell, other):
            each(inputs)
            assert each.recurrent.updates == updates
        assert torch.equal(cell(inputs)[0], other(inputs)[0])
    for _ in range(2):  # the second of them would change the base
        cell.train()(inputs)[0].sum().backward()
        optimizer.step()
    outputs = cell.eval()(inputs)[0]
    before = cell.recurrent.updates.item(), cell.recurrent.parametrizations.weight[1].base.clone()
    other = copied(cell)
    outputs.sum().backward()  # a copy changes nothing
    assert cell.recurrent.updates == before[0]
    assert torch.equal(cell.recurrent.parametrizations.weight[1].base, before[1])
    with torch.no_grad():
        other.recurrent.parametrizations.weight.original.mul_(0.5)
    assert [each.state_dict()["recurrent.updates"] for each in (cell, other)] == [4, 4]


def test_a_copy_counts_its_own_fused_updates_and_no_skipped_ones():
    cell = copy.deepcopy(Orthogonal(3, 5, method="dtriv", K=2)).eval()
    optimizer = torch.optim.SGD(cell.parameters(), lr=0.1, fused=True)
    scaler = torch.amp.GradScaler("cpu")
    for factor, updates in ((1.0, 1), (math.inf, 1), (1.0, 2)):
        cell.zero_grad()
        scaler.scale(cell(torch.ones(2, 4, 3))[0].sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        assert cell.state_dict()["recurrent.updates"] == updates


def test_cells_may_be_made_while_others_are_trained():
    """In another thread; a set that grows cannot be iterated."""
    weight = torch.nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    optimizer = torch.optim.SGD([weight], lr=0.1)

    def make():
        return [TrivializedMatrix(2, "cayley", 1) for _ in range(300)]

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(1) as pool:
            made = pool.submit(make)
            while not made.done():
                optimizer.step()
            assert len(made.result()) == 300
    finally:
        sys.setswitchinterval(before)


def test_weights_from_another_process_are_no_update():
    cell = Orthogonal(3, 5, method="dtriv", K=2)
    with torch.no_grad():
        cell.recurrent.parametrizations.weight.original.mul_(0.5)
    cell.recurrent.forget_changes()
    cell(torch.randn(2, 4, 3))
    assert cell.recurrent.updates == 0


def test_a_cell_that_is_built_in_inference_mode_evaluates():
    with torch.inference_mode():
        built = Orthogonal(3, 5, method="dtriv", K=1)
        outputs, _ = built(torch.ones(2, 4, 3))
    cell = Orthogonal(3, 5, method="dtriv", K=1)
    cell.load_state_dict(built.state_dict())
    assert_close(cell(torch.ones(2, 4, 3))[0], outputs)
    copied = copy.deepcopy(built)
    train(copied, torch.optim.SGD(copied.parameters(), lr=0.1), 3)
    assert copied.recurrent.updates == 2


def test_change_of_basis_leaves_outputs():
    cell = Orthogonal(3, 9, method="dtriv").double()
    inputs = torch.randn(2, 30, 3, dtype=torch.float64)
    before = cell(inputs)[0]
    cell.recurrent.rebase()
    assert not cell.recurrent.parametrizations.weight.original.any()
    assert_close(cell(inputs)[0], before, rtol=1e-12, atol=1e-12)


def test_training_resumes_from_a_checkpoint_bit_for_bit():
    whole = Orthogonal(3, 5, method="dtriv", K=3)
    stopped, resumed = copy.deepcopy(whole), Orthogonal(3, 5, method="dtriv", K=3)
    optimizer = torch.optim.Adam(whole.parameters(), lr=0.1)
    train(whole, optimizer, 5, seed=1)
    train(whole, optimizer, 6, seed=2)
    optimizer = torch.optim.Adam(stopped.parameters(), lr=0.1)
    train(stopped, optimizer, 5, seed=1)
    state = copy.deepcopy((stopped.state_dict(), optimizer.state_dict()))
    assert set(state[0]) - {name for name, _ in stopped.named_parameters()} == {
        "recurrent.updates",
        "recurrent.parametrizations.weight.1.base",
    }
    optimizer = torch.optim.Adam(resumed.parameters(), lr=0.1)
    resumed.load_state_dict(state[0])
    optimizer.load_state_dict(state[1])
    train(resumed, optimizer, 6, seed=2)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


@every_method
def test_gradients_are_those_of_finite_differences(method):
    cell = ExpRNN(2, 5, method=method).double().eval()
    with torch.no_grad():
        cell.bias_modrelu.uniform_(-0.1, 0.1)
        if method == "dtriv":
            cell.recurrent.rebase()
            cell.recurrent.parametrizations.weight.original.normal_(std=0.3)
    inputs = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    names, values = zip(*cell.named_parameters(), strict=True)

    def run(x, *weights):
        return torch.func.functional_call(cell, dict(zip(names, weights, strict=True)), (x,))[0]

    torch.autograd.gradcheck(run, (inputs, *values), fast_mode=True)


def test_norms_neither_grow_nor_vanish():
    for method in METHODS:
        cell = Orthogonal(3, 12, method=method, init="henaff").double()
        start = torch.randn(4, 12, dtype=torch.float64, requires_grad=True)
        outputs, _ = cell(torch.zeros(4, 500, 3, dtype=torch.float64), type(cell.initial_state(4))(start))
        assert_close(outputs[:, -1].norm(dim=1), start.norm(dim=1))
        cotangent = torch.randn(4, 12, dtype=torch.float64)
        (gradient,) = torch.autograd.grad((outputs[:, -1] * cotangent).sum(), start)
        assert_close(gradient.norm(dim=1), cotangent.norm(dim=1))


def test_q_is_computed_once_per_sequence():
    for method in METHODS:
        cell = Orthogonal(3, 7, method=method)
        computed = []
        cell.recurrent.parametrizations.weight.register_forward_hook(lambda *_, computed=computed: computed.append(1))
        inputs = torch.randn(2, 20, 3)
        expected = cell(inputs)[0]
        assert len(computed) == 1
        state, outputs = None, []
        with cached():
            for x in inputs.unbind(1):
                output, state = cell.step(x, state)
                outputs.append(output)
        assert len(computed) == 2
        assert_close(torch.stack(outputs, 1), expected)


def test_autocast_leaves_q_orthogonal():
    for method in METHODS:
        cell = Orthogonal(3, 17, method=method)
        start = torch.randn(2, 17)
        inputs = torch.zeros(2, 50, 3)
        expected = cell(inputs, type(cell.initial_state(2))(start))[0]
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(cell(inputs, type(cell.initial_state(2))(start))[0], expected)
            if method == "dtriv":
                cell.recurrent.rebase()
        if method == "dtriv":
            assert off_identity(cell.recurrent.parametrizations.weight[1].base) < 1e-6


@each
def test_copies_and_is_built_without_memory(kind, method):
    cell = kind(3, 7, method=method)
    inputs = torch.randn(2, 4, 3)
    assert torch.equal(copy.deepcopy(cell)(inputs)[0], cell(inputs)[0])
    with torch.device("meta"):
        assert kind(3, 7, method=method).recurrent.weight.shape == (7, 7)


@both
def test_wrong_arguments_are_named(kind):
    for arguments, message in (
        ({"method": "dtrv"}, "method: got 'dtrv', expected 'exprnn', 'dtriv' or 'cayley'; did you mean 'dtriv'"),
        ({"init": "henaf"}, "init: got 'henaf', expected 'cayley' or 'henaff'; did you mean 'henaff'"),
        ({"K": 0}, "K: got 0, expected greater than 0"),
        ({"k": 3}, "takes no argument 'k'"),
    ):
        with pytest.raises(UserError, match=message):
            kind(3, 7, **arguments)
