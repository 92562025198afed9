"""Whole sequences in one call against the step-by-step loop of the same cell, in value and in every gradient."""

import os
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from seqmem.cells import GRU, LMU, LMUT, LSTM, TLSI, TLTI, LagT, LagTS, LegS, LegT, LegTS
from seqmem.ops import compiled_sequence, extension, generators
from tests.cells.paths import fused, stepwise

pytestmark = pytest.mark.skipif(bool(extension.REASON), reason=f"no compiled operators: {extension.REASON}")

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
}
SIZES = {
    "one of all": (1, 1, 1, 1),
    "odd": (3, 7, 2, 7),
    "tails": (17, 5, 18, 33),
    "whole vectors": (2, 6, 16, 32),
    "more weights than a product reads at a time": (2, 3, 20, 270),
}

every_cell = pytest.mark.parametrize("cell", CELLS)
one_of_each = pytest.mark.parametrize("cell", ["legs all on", "legs", "legts", "legt", "lstm", "gru"])


@pytest.fixture
def short_chunks(monkeypatch):
    """Several checkpoints even in short sequences."""
    monkeypatch.setattr(compiled_sequence, "_CHUNK_ROWS", 7)


def make(name, channels, size, dtype=torch.float64):
    kind, arguments = CELLS[name]
    cell = kind(channels, hidden_size=size, **arguments).to(dtype)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.normal_(std=0.5 / parameter.shape[-1] ** 0.5)
    return cell


def random_state(cell, batch, together=False):
    """A state that rows have carried for different numbers of steps, or one that all have carried as long."""
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


def assert_same(given, wanted, relative=1e-10):
    assert given.keys() == wanted.keys()
    for name, value in wanted.items():
        scale = value.abs().max().item() if value.numel() > 0 and value.is_floating_point() else 0
        assert_close(
            given[name], value.to(given[name].dtype), rtol=0, atol=relative * scale, msg=lambda text, n=name: f"{n}: {text}"
        )


@every_cell
@pytest.mark.parametrize("size", SIZES)
def test_equals_the_loop(cell, size):
    batch, steps, channels, hidden = SIZES[size]
    cell = make(cell, channels, hidden)
    inputs = torch.randn(batch, steps, channels, dtype=torch.float64)
    assert_same(run(cell, inputs), run(cell, inputs, loop=True))


@every_cell
@pytest.mark.parametrize("together", [False, True], ids=["rows apart", "rows together"])
def test_carries_a_state_through_rows_of_any_length(cell, together, short_chunks):
    cell = make(cell, 3, 10)
    inputs = torch.randn(6, 9, 3, dtype=torch.float64)
    lengths = torch.tensor([9, 0, 4, 1, 9, 8])
    state = random_state(cell, 6, together)
    assert_same(run(cell, inputs, lengths, state), run(cell, inputs, lengths, state, loop=True))


@one_of_each
@pytest.mark.parametrize("longest", [0, 1, 5])
def test_steps_that_no_row_reaches(cell, longest, short_chunks):
    cell = make(cell, 2, 5)
    inputs = torch.randn(3, 9, 2, dtype=torch.float64)
    lengths = torch.tensor([longest, 0, longest // 2])
    assert_same(run(cell, inputs, lengths), run(cell, inputs, lengths, loop=True))


@pytest.mark.parametrize("measure", ["legs", "lmu", "tlagt"])
@pytest.mark.parametrize(("kind", "arguments"), [(TLSI, {}), (TLTI, {"dt": 0.3}), (TLSI, {"memory_size": 2, "gate": "N"})])
def test_every_row_goes_by_its_own_times(kind, arguments, measure, short_chunks):
    torch.manual_seed(0)
    cell = kind(3, 10, memory_order=17, measure=measure, **arguments).double()
    inputs = torch.randn(19, 9, 3, dtype=torch.float64)
    inputs[..., 0] = torch.rand(19, 9, dtype=torch.float64).cumsum(1)
    inputs[3, :4, 0] = 0  # starts again and again
    inputs[5, 2:6, 0] = inputs[5, 2:3, 0]  # stands still
    lengths = torch.randint(0, 10, (19,))
    results = []
    for loop in (fused, stepwise):
        state = cell.initial_state(19)
        outputs, final = loop(cell, inputs, state, lengths, True)
        loss = (outputs * torch.linspace(-1, 1, outputs.numel(), dtype=torch.float64).view_as(outputs)).sum()
        gradients = torch.autograd.grad(loss + final.memory.square().sum() + final.hidden.sum(), list(cell.parameters()))
        results.append((outputs, *final, *gradients))
    for given, wanted in zip(*results, strict=True):
        assert_close(given, wanted, rtol=1e-9, atol=1e-10 * wanted.abs().max().item())


@one_of_each
def test_more_rows_than_a_group_carries(cell):
    cell = make(cell, 2, 5)
    inputs = torch.randn(501, 3, 2, dtype=torch.float64)
    lengths = torch.randint(0, 4, (501,))
    assert_same(run(cell, inputs, lengths), run(cell, inputs, lengths, loop=True))


@one_of_each
@pytest.mark.parametrize("batch", [37, 201])
def test_threads_carry_unequal_groups(cell, batch):
    cell = make(cell, 2, 5)
    inputs = torch.randn(batch, 31, 2, dtype=torch.float64)
    assert_same(run(cell, inputs), run(cell, inputs, loop=True))


@one_of_each
@pytest.mark.parametrize("shape", [(0, 4, 3), (4, 0, 3)], ids=str)
def test_nothing_to_do(cell, shape):
    cell = make(cell, 3, 5)
    inputs = torch.zeros(shape, dtype=torch.float64)
    state = random_state(cell, shape[0])
    assert_same(run(cell, inputs, None, state), run(cell, inputs, None, state, loop=True))


@every_cell
def test_float32_to_rounding(cell, short_chunks):
    double = make(cell, 3, 37)
    inputs = torch.randn(29, 60, 3, dtype=torch.float64)
    wanted = run(double, inputs, loop=True)
    assert_same(run(double.float(), inputs.float()), wanted, relative=4e-5)


@one_of_each
@pytest.mark.parametrize("first", [0, 5, 19])
def test_gradients_that_vanish_on_their_way_back(cell, first, short_chunks):
    """Steps that nothing flows back to are skipped; the inputs before ``first`` are far beyond where the gates saturate."""
    cell = make(cell, 3, 10)
    inputs = torch.randn(4, 20, 3, dtype=torch.float64)
    inputs[:, :first] *= 1e4
    inputs.requires_grad_()
    gradients = []
    for loop in (fused, stepwise):
        outputs, _ = loop(cell, inputs, cell.initial_state(4), None, True)
        gradients.append(
            torch.autograd.grad(outputs[:, -1].sum(), [inputs, *cell.parameters()], materialize_grads=True, allow_unused=True)
        )
    for given, wanted in zip(*gradients, strict=True):
        assert_close(given, wanted, rtol=0, atol=1e-10 * wanted.abs().max().item())


def error(given, wanted):
    """Relative, in the Euclidean norm of each result."""
    return {name: ((given[name] - value).norm() / value.norm().clamp(min=1e-6)).item() for name, value in wanted.items()}


@every_cell
@pytest.mark.parametrize("size", [(3, 7, 2, 7), (37, 9, 40, 33), (50, 5, 1, 64)], ids=str)
def test_bfloat16_products_are_no_worse_than_those_of_the_loop(cell, size, short_chunks):
    if not torch.ops.seqmem.bfloat16_products():
        pytest.skip("no products in bfloat16 on this processor")
    batch, steps, channels, hidden = size
    cell = make(cell, channels, hidden, torch.float32)
    inputs = torch.randn(batch, steps, channels)
    lengths = torch.randint(0, steps + 1, (batch,))
    exact = run(cell, inputs, lengths, loop=True)
    exact.pop("step", None)
    with torch.autocast("cpu", torch.bfloat16):
        assert not compiled_sequence.fallback_reason(inputs)
        assert not compiled_sequence.fallback_reason(inputs.bfloat16())
        given, loop = run(cell, inputs, lengths), run(cell, inputs, lengths, loop=True)
    assert given["outputs"].dtype == torch.float32
    ours, theirs = error(given, exact), error(loop, exact)
    for name, value in ours.items():
        assert value < max(0.05, 2 * theirs[name]), name  # a sum that all but cancels is known no better
    assert 1e-6 < sum(ours.values()) <= 1.2 * sum(theirs.values())


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize(("size", "dtype"), [(112, torch.float32), (101, torch.float32), (56, torch.float64)])
@one_of_each
def test_what_is_too_large_for_the_caches_is_the_same(cell, size, dtype, padded):
    """From 16 MiB of outputs and kept numbers on these are stored past the caches; eighths of the sequence are below that."""
    cell = make(cell, 1, size, dtype)
    inputs = torch.randn(32, 1000, 1, dtype=dtype)
    lengths = torch.randint(1, 1001, (32,)).scatter(0, torch.tensor([5]), 1000) if padded else None
    outputs, state = cell(inputs, lengths=lengths)
    cotangents = torch.randn_like(outputs).split(125, 1)
    gradients = torch.autograd.grad(outputs, list(cell.parameters()), torch.cat(cotangents, 1))
    eighths, carried = [], None
    for k, part in enumerate(inputs.split(125, 1)):
        output, carried = cell(part, carried, lengths=None if lengths is None else (lengths - 125 * k).clamp(0, 125))
        eighths.append(output)
    rounding = 1e-5 if padded else 0
    assert_close(torch.cat(eighths, 1), outputs, rtol=rounding, atol=rounding)
    assert_close(carried, state, rtol=rounding, atol=rounding)
    assert_close(torch.autograd.grad(eighths, list(cell.parameters()), cotangents), gradients, rtol=1e-3, atol=1e-3)


@one_of_each
def test_threads_agree(cell):
    cell = make(cell, 3, 12)
    inputs = torch.randn(11, 8, 3, dtype=torch.float64)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = run(cell, inputs)
        torch.set_num_threads(2)
        two = run(cell, inputs)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one["outputs"], two["outputs"])
    assert_same(two, one, relative=1e-14)


@pytest.mark.parametrize(
    "name", ["baseline", pytest.param("avx2", marks=pytest.mark.slow), pytest.param("avx512", marks=pytest.mark.slow)]
)
def test_other_instruction_sets(name):
    selected = "test_bfloat16_products" if name == "avx512" else "test_equals_the_loop or test_float32_to_rounding"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", selected, __file__]
    environment = os.environ | {"SEQMEM_INSTRUCTION_SET": name}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@one_of_each
def test_padding_may_hold_anything(cell):
    cell = make(cell, 3, 6)
    inputs = torch.randn(2, 5, 3, dtype=torch.float64)
    lengths = torch.tensor([5, 2])
    spoilt = inputs.clone()
    spoilt[1, 2:] = torch.nan
    assert_same(run(cell, spoilt, lengths), run(cell, inputs, lengths))


@one_of_each
def test_inputs_need_not_lie_in_order(cell):
    cell = make(cell, 3, 6)
    inputs = torch.randn(3, 4, 5, dtype=torch.float64).permute(2, 1, 0)
    assert not inputs.is_contiguous()
    assert_same(run(cell, inputs), run(cell, inputs.contiguous()))


@one_of_each
def test_only_what_is_asked_for_flows_back(cell):
    cell = make(cell, 3, 6)
    inputs = torch.randn(2, 9, 3, dtype=torch.float64)
    leaf = next(cell.parameters())
    for pick in (lambda outputs, state: outputs[:, -1], lambda outputs, state: state.hidden):
        given, wanted = (
            torch.autograd.grad(pick(*loop(cell, inputs, cell.initial_state(2), None, True)).sum(), leaf)[0]
            for loop in (fused, stepwise)
        )
        assert_close(given, wanted)


@pytest.mark.parametrize(("name", "reference"), [("tanh", torch.tanh), ("sigmoid", torch.sigmoid)])
@pytest.mark.parametrize(("dtype", "units"), [(torch.float32, 4), (torch.float64, 6)], ids=str)
def test_activations_to_a_few_units_in_the_last_place(name, reference, dtype, units):
    switches = {"uh": False, "hm": False, "bias": False}
    cell = LegS(1, hidden_size=1, gate="N", hidden_activation=name, architecture=switches).to(dtype)
    torch.nn.init.ones_(cell.weight_hx)
    small = torch.logspace(-30, 1.9, 4000, dtype=torch.float64)
    x = torch.cat([small, -small, torch.linspace(-30, 30, 4001, dtype=torch.float64), torch.tensor([0.0, 200.0, -80.0])]).to(
        dtype
    )
    y = cell(x.view(-1, 1, 1))[0].view(-1)
    wanted = reference(x.double())
    assert_close(y.double(), wanted, rtol=units * torch.finfo(dtype).eps, atol=torch.finfo(dtype).tiny)
    assert_close(cell(torch.full((1, 1, 1), torch.nan, dtype=dtype))[0].isnan().all(), torch.tensor(True))


def is_weight(part):
    return isinstance(part, torch.Tensor) and part.requires_grad


def arguments(name):
    """Small arguments of the operator of a cell, as the cell gives them, at sizes that leave nothing it keeps undefined."""
    cell = make(name, 3, 16)
    inputs = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    state = [part.requires_grad_() for part in random_state(cell, 2) if part.is_floating_point()]
    if name.startswith("le"):
        names = ("ux", "uh", "um", "bias_u", "hx", "hm", "hh", "bias_h")
        weights = [getattr(cell, name if "bias" in name else f"weight_{name}") for name in names]
        memory = cell.dynamics(inputs, cell.initial_state(2), True)
        steps = (memory.get(name) for name in ("step_sizes", "generators", "step", "drive"))
        more = (0.5, "id", "tanh", True, cell.memory_output, False, 3)
        return torch.ops.seqmem.memory_sequence.default, (inputs, *state, *steps, torch.tensor([4, 4]), *weights, *more)
    operator = torch.ops.seqmem.lstm_sequence if name.startswith("lstm") else torch.ops.seqmem.gru_sequence
    weights = (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
    return operator.default, (inputs, *state, torch.tensor([4, 4]), *weights, False, 3)


@one_of_each
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # opcheck's own
def test_operators_are_well_formed(cell, dtype):
    operator, given = arguments(cell)
    if dtype == torch.bfloat16:
        if not torch.ops.seqmem.bfloat16_products():
            pytest.skip("no products in bfloat16 on this processor")
        parts = (part.detach().float().requires_grad_() if is_weight(part) else part for part in given)
        given = tuple(True if k == len(given) - 2 else part for k, part in enumerate(parts))
    torch.use_deterministic_algorithms(False)
    with torch.no_grad():
        shapes = [part.shape for part in operator(*given)]
    assert shapes[0][:2] == (2, 4)
    torch.library.opcheck(operator, given)


@one_of_each
def test_a_cell_compiles(cell):
    cell = make(cell, 3, 5)
    inputs = torch.randn(3, 5, 3, dtype=torch.float64)
    compiled = torch.compile(cell, backend="aot_eager")
    assert_close(compiled(inputs)[0], cell(inputs)[0])


@one_of_each
def test_nothing_is_kept_where_no_gradient_is_asked_for(cell):
    operator, given = arguments(cell)
    kept = [part.numel() for part in operator(*given[:-1], 0)][-1]
    assert kept == 0
    with torch.no_grad():
        assert compiled_sequence.chunk_steps(given[0]) == 0
    assert compiled_sequence.chunk_steps(given[0]) > 0


@one_of_each
def test_second_derivatives_are_refused(cell):
    cell = make(cell, 3, 5)
    inputs = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(cell(inputs)[0].sum(), inputs, create_graph=True)
    with pytest.raises(NotImplementedError, match="differentiable once; with SEQMEM_REFERENCE=1"):
        first.sum().backward()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({1: torch.zeros(3, 16, dtype=torch.float64)}, r"hidden: got shape \[3, 16\], expected \[2, 16\]"),
        ({0: torch.zeros(2, 4, 3)}, "hidden: got float64, expected float32"),
        ({0: torch.zeros(2, 4, 3, dtype=torch.float16)}, "inputs: got float16, expected float32 or float64"),
        ({3: torch.zeros(4)}, r"step_sizes: got \[4\] float32, expected \[4\] float64"),
        ({4: torch.zeros(6, 5, dtype=torch.float64)}, r"generators: got \[6, 5\] float64, expected \[6, 16\] float64"),
        ({4: None}, "expected either generators and step_sizes, or step and drive"),
        ({7: torch.zeros(2)}, r"lengths: got \[2\] float32, expected \(B,\) int64 with B = 2"),
        ({17: "elu"}, "memory_activation: got 'elu', expected 'id', 'tanh', 'relu' or 'sigmoid'"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    operator, given = arguments("legs")
    with pytest.raises(ValueError, match=message):
        operator(*(changes.get(index, value) for index, value in enumerate(given)))


def test_what_is_not_covered_goes_step_by_step(monkeypatch):
    inputs = torch.zeros(1, 2, 3)
    assert not compiled_sequence.fallback_reason(inputs)
    assert LegS(2, discretization="zoh").fallback_reason(inputs)
    assert compiled_sequence.fallback_reason(inputs.half())
    assert compiled_sequence.fallback_reason(torch.zeros(1, 2, 3, device="meta"))
    assert compiled_sequence.fallback_reason(inputs.bfloat16())
    with torch.autocast("cpu", torch.float16):
        assert compiled_sequence.fallback_reason(inputs)
        assert not compiled_sequence.fallback_reason(inputs.double())
    monkeypatch.setattr(extension, "REASON", "SEQMEM_REFERENCE is set")
    monkeypatch.setattr(extension, "FORCED", True)
    assert compiled_sequence.fallback_reason(inputs)


def test_what_is_kept_grows_no_faster_than_the_length():
    def kept(steps):
        zeros = torch.zeros
        sizes = zeros(steps, dtype=torch.float64)
        given = (
            zeros(2, steps, 1),
            zeros(2, 3),
            zeros(2, 1, 4),
            sizes,
            generators("legs", 4),
            None,
            None,
            None,
            None,
            zeros(1, 3),
        )
        parts = torch.ops.seqmem.memory_sequence(
            *given, *[None] * 3, zeros(6, 4), None, None, 0.5, "id", "tanh", True, False, False, 100
        )
        return sum(part.numel() for part in parts)

    sizes = [kept(steps) for steps in (1000, 2000, 4000)]
    assert all(long <= 2 * short for short, long in pairwise(sizes))
