"""Whole sequences in one compiled call against the loop of the same cell, in value and in every gradient.

The default tests sample the grids of cells, sizes and types; the slow ones cover them.
"""

import os
import subprocess
import sys
from itertools import chain, pairwise, product
from pathlib import Path

import pytest
import torch
from torch.overrides import TorchFunctionMode
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
    "gru resets before": (GRU, {"reset_after": False}),
    "gru resets before, no bias": (GRU, {"reset_after": False, "bias": False}),
}
SIZES = {
    "one of all": (1, 1, 1, 1),
    "odd": (3, 7, 2, 7),
    "tails": (17, 5, 18, 33),
    "whole vectors": (2, 6, 16, 32),
    "more weights than a block of a product": (2, 3, 20, 270),
}
OPERATORS = {"memory": ["legs all on", "legs", "legts", "legt"], "lstm": ["lstm"], "gru": ["gru", "gru resets before"]}
"""Cells of each compiled operator; those of the memory differ in the structure of A, those of the GRU in the product of n."""

every_cell = pytest.mark.parametrize("cell", CELLS)
every_operator = pytest.mark.parametrize("names", OPERATORS.values(), ids=OPERATORS)
families = pytest.mark.parametrize(
    "names",
    [
        [name for name in CELLS if name.split()[0] in family]
        for family in (["legs"], ["legts", "lagts"], ["legt", "lmut", "lagt", "lmu"], ["lstm", "gru"])
    ],
    ids=["legs", "stretched", "fixed step", "gates"],
)


@pytest.fixture
def short_chunks(monkeypatch):
    """Make short sequences have several checkpoints."""
    monkeypatch.setattr(compiled_sequence, "_CHUNK_ROWS", 7)


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


@every_cell
def test_equals_the_loop(cell, short_chunks):
    """Of two sizes, and from a state, with rows that are at the same step or not."""
    assert_equals_the_loop(cell, "tails")
    assert_equals_the_loop(cell, list(SIZES)[list(CELLS).index(cell) % len(SIZES)])
    made = make(cell, 3, 10)
    inputs = torch.randn(6, 9, 3, dtype=torch.float64)
    lengths = torch.tensor([9, 0, 4, 1, 9, 8])
    for together in (False, True):
        state = random_state(made, 6, together)
        assert_same(run(made, inputs, lengths, state), run(made, inputs, lengths, state, loop=True))


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_every_cell_equals_the_loop(size):
    for name in CELLS:
        assert_equals_the_loop(name, size)


@every_operator
def test_steps_that_no_row_reaches(names, short_chunks):
    for cell in (make(name, 2, 5) for name in names):
        inputs = torch.randn(3, 9, 2, dtype=torch.float64)
        for longest in (0, 1, 5):
            lengths = torch.tensor([longest, 0, longest // 2])
            assert_same(run(cell, inputs, lengths), run(cell, inputs, lengths, loop=True))


@pytest.mark.parametrize(
    ("kind", "arguments", "measure"),
    [(TLSI, {}, "legs"), (TLTI, {"dt": 0.3}, "lmu"), (TLSI, {"memory_size": 2, "gate": "N"}, "tlagt")],
)
def test_every_row_has_its_own_times(kind, arguments, measure, short_chunks):
    torch.manual_seed(0)
    cell = kind(3, 10, memory_order=17, measure=measure, **arguments).double()
    inputs = torch.randn(19, 9, 3, dtype=torch.float64)
    inputs[..., 0] = torch.rand(19, 9, dtype=torch.float64).cumsum(1)
    inputs[3, :4, 0] = 0  # starts again and again
    inputs[5, 2:6, 0] = inputs[5, 2:3, 0]  # time does not advance
    lengths = torch.randint(0, 10, (19,))
    results = []
    for loop in (fused, stepwise):
        state = cell.initial_state(19)
        outputs, final = loop(cell, inputs, state, lengths, True)
        loss = (outputs * torch.linspace(-1, 1, outputs.numel(), dtype=torch.float64).view_as(outputs)).sum()
        gradients = torch.autograd.grad(loss + final.memory.square().sum() + final.hidden.sum(), list(cell.parameters()))
        results.append((outputs, *final, *gradients))
    for given, expected in zip(*results, strict=True):
        assert_close(given, expected, rtol=1e-9, atol=1e-10 * expected.abs().max().item())


@every_operator
def test_more_rows_than_a_group(names):
    """Groups of rows are of unequal sizes, and threads compute unequal numbers of groups."""
    for cell in (make(name, 2, 5) for name in names):
        for batch, steps in ((501, 3), (37, 31), (201, 9)):
            inputs = torch.randn(batch, steps, 2, dtype=torch.float64)
            lengths = torch.randint(0, steps + 1, (batch,)) if batch == 501 else None
            assert_same(run(cell, inputs, lengths), run(cell, inputs, lengths, loop=True))


@every_operator
def test_no_rows_or_no_steps(names):
    for cell in (make(name, 3, 5) for name in names):
        for shape in ((0, 4, 3), (4, 0, 3)):
            inputs, state = torch.zeros(shape, dtype=torch.float64), random_state(cell, shape[0])
            assert_same(run(cell, inputs, None, state), run(cell, inputs, None, state, loop=True))


def assert_float32_to_rounding(name):
    cell = make(name, 3, 37)
    inputs = torch.randn(29, 60, 3, dtype=torch.float64)
    expected = run(cell, inputs, loop=True)
    assert_same(run(cell.float(), inputs.float()), expected, relative=4e-5)


@families
def test_float32_to_rounding(names, short_chunks):
    for name in names:
        assert_float32_to_rounding(name)


@every_operator
def test_gradients_that_vanish_in_backward(names, short_chunks):
    """Steps that no gradient reaches are skipped; inputs before ``first`` are so large that the gates saturate."""
    for name, first in product(names, (0, 5, 19)):
        cell = make(name, 3, 10)
        inputs = torch.randn(4, 20, 3, dtype=torch.float64)
        inputs[:, :first] *= 1e4
        inputs.requires_grad_()
        gradients = []
        for loop in (fused, stepwise):
            outputs, _ = loop(cell, inputs, cell.initial_state(4), None, True)
            leaves = [inputs, *cell.parameters()]
            found = torch.autograd.grad(outputs[:, -1].sum(), leaves, materialize_grads=True, allow_unused=True)
            gradients.append(found)
        for given, expected in zip(*gradients, strict=True):
            assert_close(given, expected, rtol=0, atol=1e-10 * expected.abs().max().item())


def error(given, expected):
    """Relative, in the Euclidean norm of each result."""
    return {name: ((given[name] - value).norm() / value.norm().clamp(min=1e-6)).item() for name, value in expected.items()}


def assert_bfloat16_is_no_worse(name, size):
    batch, steps, channels, hidden = size
    cell = make(name, channels, hidden, torch.float32)
    inputs = torch.randn(batch, steps, channels)
    lengths = torch.randint(0, steps + 1, (batch,))
    exact = run(cell, inputs, lengths, loop=True)
    exact.pop("step", None)
    with torch.autocast("cpu", torch.float16):
        assert "torch.float16" in compiled_sequence.fallback_reason(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        assert not compiled_sequence.fallback_reason(inputs)
        assert not LSTM(3, 4).fallback_reason(inputs.bfloat16())  # the type of the weights matters
        assert "torch.bfloat16" in LSTM(3, 4).bfloat16().fallback_reason(inputs)
        given, loop = run(cell, inputs, lengths), run(cell, inputs, lengths, loop=True)
    assert given["outputs"].dtype == torch.float32
    ours, theirs = error(given, exact), error(loop, exact)
    for result, value in ours.items():
        assert value < max(0.05, 2 * theirs[result]), (name, result)  # a sum that all but cancels is known no better
    assert 1e-6 < sum(ours.values()) <= 1.2 * sum(theirs.values())


BFLOAT16_SIZES = [(3, 7, 2, 7), (37, 9, 40, 33), (50, 5, 1, 64)]


@families
def test_bfloat16_products_are_no_worse_than_those_of_the_loop(names, short_chunks):
    for k, name in enumerate(names):
        assert_bfloat16_is_no_worse(name, BFLOAT16_SIZES[k % 3])


@pytest.mark.slow
def test_bfloat16_products_of_every_cell_and_size(short_chunks):
    for name in CELLS:
        for size in BFLOAT16_SIZES:
            assert_bfloat16_is_no_worse(name, size)


class RoundedLinear(torch.autograd.Function):
    """x W^T with operands rounded to bfloat16, in forward (if ``deep``) and in backward."""

    @staticmethod
    def forward(ctx, x, weight, deep):
        ctx.save_for_backward(x, weight)
        return nearest(x) @ nearest(weight).T if deep else x @ weight.T

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad = nearest(grad)
        return grad @ nearest(weight), grad.flatten(0, -2).T @ nearest(x).flatten(0, -2), None


class RoundedGradient(torch.autograd.Function):
    """The identity; its gradient is rounded to bfloat16, as that of a bias."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return nearest(grad)


def nearest(x):
    return x.bfloat16().to(x.dtype)


class RoundedOperands(TorchFunctionMode):
    """The products of the gates as the operators compute them, in the type of the operands.

    The memory inputs are not rounded, nor are inputs with fewer than 32 channels in forward.
    """

    def __init__(self, channels, memories):
        super().__init__()
        self.channels, self.memories = channels, memories

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not torch.nn.functional.linear or len(args[1]) == self.memories:
            return func(*args, **kwargs or {})
        x, weight, *bias = args
        exact = self.memories if x.shape[-1] == self.channels else 0
        deep = x.shape[-1] != self.channels or self.channels >= 32
        terms = [x @ weight[:exact].T, RoundedLinear.apply(x, weight[exact:], deep)]
        if bias and bias[0] is not None:
            rounded = RoundedGradient.apply(bias[0].expand(*x.shape[:-1], -1)[..., exact:])
            terms = [terms[0] + bias[0][:exact], terms[1] + rounded]
        return torch.cat(terms, -1)


def assert_bfloat16_rounds_the_operands(name, size):
    batch, steps, channels, hidden = size
    cell = make(name, channels, hidden, torch.float32)
    inputs = torch.randn(batch, steps, channels)
    lengths = torch.randint(0, steps + 1, (batch,))
    with torch.autocast("cpu", torch.bfloat16):
        given = run(cell, inputs, lengths)
    cell, inputs = cell.double(), inputs.double()
    memories = cell.initial_state(1).memory.shape[1] if name.startswith("l") and name[:4] != "lstm" else 0
    exact = run(cell, inputs, lengths, loop=True)
    with RoundedOperands(channels, memories):
        rounded = run(cell, inputs, lengths, loop=True)
    for result in (exact, rounded):
        result.pop("step", None)
    ours, rounding = error(given, rounded), error(exact, rounded)
    # A sum of float32 and one of float64 may round to different neighbours, rarely.
    assert all(value <= 0.1 * rounding[result] + 3e-4 for result, value in ours.items()), (ours, rounding)
    assert sum(ours.values()) <= 0.05 * sum(rounding.values())


BFLOAT16_CELLS = ["legs", "legs all on", "legs ungated", "legt", "lstm", "gru", "gru resets before"]


@pytest.mark.parametrize("name", BFLOAT16_CELLS)
def test_bfloat16_products_round_the_operands(name, short_chunks):
    for size in ((5, 7, 3, 40), (19, 4, 37, 50)):
        assert_bfloat16_rounds_the_operands(name, size)


def assert_large_equals_small(name, size, dtype, padded):
    """From 16 MiB of outputs and intermediate values on these are stored past the caches; eighths of a sequence are not."""
    cell = make(name, 1, size, dtype)
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


@pytest.mark.parametrize(
    ("cell", "size", "dtype", "padded"),
    [
        ("legs all on", 101, torch.float32, True),
        ("legts", 56, torch.float64, False),
        ("legt", 112, torch.float32, False),
        ("lstm", 101, torch.float32, False),
        ("gru", 56, torch.float64, True),
        ("gru resets before", 112, torch.float32, False),
    ],
    ids=str,
)
def test_sequences_that_are_stored_past_the_caches(cell, size, dtype, padded):
    assert_large_equals_small(cell, size, dtype, padded)


@pytest.mark.slow
@every_operator
def test_every_sequence_that_is_stored_past_the_caches(names):
    sizes = ((112, torch.float32), (101, torch.float32), (56, torch.float64))
    for name, (size, dtype), padded in product(names, sizes, (False, True)):
        assert_large_equals_small(name, size, dtype, padded)


def test_threads_agree():
    threads = torch.get_num_threads()
    for name in chain(*OPERATORS.values()):
        cell, inputs = make(name, 3, 12), torch.randn(11, 8, 3, dtype=torch.float64)
        try:
            torch.set_num_threads(1)
            one = run(cell, inputs)
            torch.set_num_threads(2)
            two = run(cell, inputs)
        finally:
            torch.set_num_threads(threads)
        assert torch.equal(one["outputs"], two["outputs"])
        assert_same(two, one, relative=1e-14)


def run_with(instruction_set, *command):
    """Run a command in a process that is limited to an instruction set."""
    environment = os.environ | {"SEQMEM_INSTRUCTION_SET": instruction_set}
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, *command], env=environment, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


SAMPLE = """
from tests.ops import test_multiscale, test_sequence

for name in ("legs all on", "lagts", "legt", "lstm", "gru", "gru resets before"):
    test_sequence.assert_equals_the_loop(name, "tails")
    test_sequence.assert_float32_to_rounding(name)
    test_sequence.assert_bfloat16_rounds_the_operands(name, (5, 7, 3, 40))
for boundary in ("sample", "soft"):
    test_multiscale.assert_equals_the_loop(test_multiscale.SIZES[3], "paper", boundary)
test_multiscale.assert_float32_to_rounding("reference")
"""


def test_without_vector_instructions():
    run_with("baseline", "-c", SAMPLE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "selected"),
    [
        ("baseline", "equals_the_loop or test_float32_to_rounding or bfloat16_products"),
        ("avx2", "equals_the_loop or test_float32_to_rounding or bfloat16_products"),
        ("avx512", "bfloat16_products"),
        ("avx512_bf16", "bfloat16_products"),
    ],
)
def test_other_instruction_sets(name, selected):
    files = [__file__, str(Path(__file__).with_name("test_multiscale.py"))]
    run_with(name, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-k", selected, *files)


@every_operator
def test_padding_and_strides_do_not_matter(names):
    for cell in (make(name, 3, 6) for name in names):
        inputs = torch.randn(3, 4, 5, dtype=torch.float64).permute(2, 1, 0)
        assert not inputs.is_contiguous()
        assert_same(run(cell, inputs), run(cell, inputs.contiguous()))
        lengths = torch.tensor([4, 2, 0, 4, 1])
        padded = inputs.clone()
        padded[1, 2:] = torch.nan
        assert_same(run(cell, padded, lengths), run(cell, inputs, lengths))


@every_operator
def test_gradients_of_a_single_result(names):
    for cell in (make(name, 3, 6) for name in names):
        inputs = torch.randn(2, 9, 3, dtype=torch.float64)
        leaf = next(cell.parameters())
        for pick in (lambda outputs, state: outputs[:, -1], lambda outputs, state: state.hidden):
            given, expected = (
                torch.autograd.grad(pick(*loop(cell, inputs, cell.initial_state(2), None, True)).sum(), leaf)[0]
                for loop in (fused, stepwise)
            )
            assert_close(given, expected)


def test_activations_to_a_few_units_in_the_last_place():
    small = torch.logspace(-30, 1.9, 4000, dtype=torch.float64)
    limits = torch.tensor([0.0, 200.0, -80.0])
    exact = torch.cat([small, -small, torch.linspace(-30, 30, 4001, dtype=torch.float64), limits])
    switches = {"uh": False, "hm": False, "bias": False}
    for reference, (dtype, units) in product((torch.tanh, torch.sigmoid), ((torch.float32, 4), (torch.float64, 6))):
        name = reference.__name__
        cell = LegS(1, hidden_size=1, gate="N", hidden_activation=name, architecture=switches).to(dtype)
        torch.nn.init.ones_(cell.weight_hx)
        x = exact.to(dtype)
        y = cell(x.view(-1, 1, 1))[0].view(-1)
        tolerance = {"rtol": units * torch.finfo(dtype).eps, "atol": torch.finfo(dtype).tiny}
        assert_close(y.double(), reference(x.double()), **tolerance, msg=lambda text, name=name: f"{name}: {text}")
        assert cell(torch.full((1, 1, 1), torch.nan, dtype=dtype))[0].isnan().all()


def is_weight(part):
    return isinstance(part, torch.Tensor) and part.requires_grad


def arguments(name):
    """Small arguments of a cell's operator, of sizes without unused units in what is kept for backward."""
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
    weights = (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
    if name.startswith("lstm"):
        return torch.ops.seqmem.lstm_sequence.default, (inputs, *state, torch.tensor([4, 4]), *weights, False, 3)
    return torch.ops.seqmem.gru_sequence.default, (inputs, *state, torch.tensor([4, 4]), *weights, cell.reset_after, False, 3)


opcheck_warning = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")


def assert_well_formed(name, dtype):
    operator, given = arguments(name)
    if dtype == torch.bfloat16:
        parts = (part.detach().float().requires_grad_() if is_weight(part) else part for part in given)
        given = tuple(True if k == len(given) - 2 else part for k, part in enumerate(parts))
    torch.use_deterministic_algorithms(False)
    with torch.no_grad():
        shapes = [part.shape for part in operator(*given)]
    assert shapes[0][:2] == (2, 4)
    torch.library.opcheck(operator, given)


@opcheck_warning
@pytest.mark.parametrize("name", ["legs all on", "lstm", "gru resets before"])
def test_operators_are_well_formed(name):
    assert_well_formed(name, torch.float64)


@opcheck_warning
@pytest.mark.slow
@every_operator
def test_operators_with_bfloat16_products_are_well_formed(names):
    for name in names:
        assert_well_formed(name, torch.float64)
        assert_well_formed(name, torch.bfloat16)


@pytest.mark.parametrize("cell", ["legs all on", "lstm", pytest.param("gru", marks=pytest.mark.slow)])
def test_a_cell_compiles(cell):
    cell = make(cell, 3, 5)
    inputs = torch.randn(3, 5, 3, dtype=torch.float64)
    outputs = torch.compile(cell, backend="aot_eager")(inputs)[0]
    assert cell.path == "one compiled call"
    assert_close(outputs, cell(inputs)[0])


def test_nothing_is_kept_for_backward_without_a_gradient():
    for name in chain(*OPERATORS.values()):
        operator, given = arguments(name)
        kept = [part.numel() for part in operator(*given[:-1], 0)][-1]
        assert kept == 0
        with torch.no_grad():
            assert compiled_sequence.chunk_steps(given[0]) == 0
        assert compiled_sequence.chunk_steps(given[0]) > 0


def test_second_derivatives_are_refused():
    for name in ("legs", "lstm", "gru"):
        cell = make(name, 3, 5)
        inputs = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
        (first,) = torch.autograd.grad(cell(inputs)[0].sum(), inputs, create_graph=True)
        with pytest.raises(NotImplementedError, match="differentiable once; with SEQMEM_REFERENCE=1"):
            first.sum().backward()


def test_wrong_arguments_are_named():
    operator, given = arguments("legs")
    for changes, message in (
        ({1: torch.zeros(3, 16, dtype=torch.float64)}, r"hidden: got shape \[3, 16\], expected \[2, 16\]"),
        ({0: torch.zeros(2, 4, 3)}, "hidden: got float64, expected float32"),
        ({0: torch.zeros(2, 4, 3, dtype=torch.float16)}, "inputs: got float16, expected float32 or float64"),
        ({3: torch.zeros(4)}, r"step_sizes: got \[4\] float32, expected \[4\] float64"),
        ({4: torch.zeros(6, 5, dtype=torch.float64)}, r"generators: got \[6, 5\] float64, expected \[6, 16\] float64"),
        ({4: None}, "expected either generators and step_sizes, or step and drive"),
        ({7: torch.zeros(2)}, r"lengths: got \[2\] float32, expected \(B,\) int64 with B = 2"),
        ({17: "elu"}, "memory_activation: got 'elu', expected 'id', 'tanh', 'relu' or 'sigmoid'"),
    ):
        with pytest.raises(ValueError, match=message):
            operator(*(changes.get(index, value) for index, value in enumerate(given)))


def test_lengths_are_within_the_steps():
    for name in ("legs", "lstm", "gru"):
        operator, given = arguments(name)
        index = [argument.name for argument in operator._schema.arguments].index("lengths")
        for lengths, message in (([4, 5], "got 5 in row 1"), ([-1, 4], "got -1 in row 0")):
            changed = (torch.tensor(lengths) if k == index else part for k, part in enumerate(given))
            with pytest.raises(ValueError, match=f"seqmem::.*_sequence: lengths: {message}, expected 0 to T = 4"):
                operator(*changed)


def test_unsupported_settings_have_a_fallback_reason(monkeypatch):
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


def test_memory_for_backward_is_linear_in_the_length():
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
