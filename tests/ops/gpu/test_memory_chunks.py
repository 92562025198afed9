"""The HiPPO network in chunks, with plain kernels on the CPU, against the time loop of the same cell in float64."""

import copy
import gc
from collections import OrderedDict
from itertools import product

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.testing import assert_close

from seqmem.cells import LagTS, LegS, LegT, LegTS, positions
from seqmem.ops.constants import nbytes
from seqmem.ops.gpu import (
    captures,
    memory_chunks,
    memory_chunks_constants,
    memory_chunks_graphs,
    memory_chunks_layout,
    support,
)
from tests.cells.test_battery import make as make_tiny
from tests.fake_graphs import Recomputed
from tests.ops.gpu.chunks import CELLS, assert_equals_the_loop, make, use_on_cpu
from tests.ops.sequences import assert_same, error, random_state, run


@pytest.fixture(autouse=True)
def chunks_on_cpu(monkeypatch):
    use_on_cpu(monkeypatch)


@pytest.mark.parametrize("name", CELLS)
def test_equals_the_loop(name):
    """From the initial state, and with padding that holds NaN from a state at step 3, over several chunks."""
    cell = make(name, 2, 7)
    assert_equals_the_loop(cell, 2, 17)
    assert_equals_the_loop(cell, 5, 11, [11, 0, 4, 8, 9], random_state(cell, 5, together=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_every_cell_equals_the_loop_at_borders_of_chunks(name):
    for size, order, steps in product((7, 33, 96), (9, 33), (1, 2, 7, 8, 9, 16, 17, 31)):
        cell = make(name, 3, size, memory_order=order if "forward" not in name else 3)
        assert_equals_the_loop(cell, 3, steps, relative=1e-8)
        lengths = [steps, 0, (steps + 1) // 2, 1, max(0, steps - 1)]
        assert_equals_the_loop(cell, 5, steps, lengths, random_state(cell, 5, together=True), relative=1e-8)


@pytest.mark.parametrize(("kind", "size", "order", "steps"), [(LegS, 33, 9, 8), (LegT, 96, 33, 9), (LagTS, 7, 33, 1)])
def test_borders_of_chunks(kind, size, order, steps):
    cell = kind(3, size, memory_order=order, memory_size=2 if kind is LegS else 1).double()
    assert_equals_the_loop(cell, 3, steps)
    assert_equals_the_loop(cell, 3, steps, [steps, 0, steps - 1], random_state(cell, 3, together=True))


@pytest.mark.slow
@pytest.mark.parametrize("discretization", ["forward", "backward", "bilinear", "zoh", 0.3])
@pytest.mark.parametrize("kind", [LegS, LegTS, LagTS, LegT])
def test_every_discretization(kind, discretization):
    init_t = {} if kind is LegT else {"init_t": 40 if discretization == "forward" else 0}
    cell = kind(
        2, 7, memory_order=9, memory_size=2, discretization=discretization, architecture={"um": True}, **init_t
    ).double()
    assert_equals_the_loop(cell, 4, 19, [19, 3, 0, 16])


def test_one_group_of_chunks(monkeypatch):
    monkeypatch.setattr(memory_chunks_layout, "GROUP_BYTES", 2**26)
    for name in ("legs all on", "legt", "legs zoh"):
        assert_equals_the_loop(make(name, 2, 7), 3, 33)


def test_no_rows_or_no_steps():
    for name in ("legs all on", "legt", "legs zoh"):
        cell = make(name, 3, 5)
        for shape in ((0, 4, 3), (4, 0, 3)):
            inputs, state = torch.zeros(shape, dtype=torch.float64), random_state(cell, shape[0], together=True)
            assert_same(run(cell, inputs, None, state), run(cell, inputs, None, state, loop=True))


def test_float32_to_rounding():
    for name in ("legs", "legts", "legt", "legs zoh"):
        cell = make(name, 3, 37)
        inputs = torch.randn(7, 30, 3, dtype=torch.float64)
        expected = run(cell, inputs, loop=True)
        assert_same(run(cell.float(), inputs.float()), expected, relative=4e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["legs", "legt"])
def test_float32_over_twenty_thousand_steps(name):
    cell = make(name, 1, 4, memory_order=8)
    inputs = torch.randn(1, 20_000, 1, dtype=torch.float64)
    with torch.no_grad():
        expected, after = cell(inputs)
        found, state = cell.float()(inputs.float())
    assert_close(found.double(), expected, rtol=0, atol=1e-4)
    assert_close(state.memory.double(), after.memory, rtol=0, atol=1e-4 * after.memory.abs().max().item())


def test_gradients_of_a_single_result():
    for name, pick in product(("legs", "legt", "legs zoh"), (lambda outputs, _: outputs[:, -1], lambda _, state: state.memory)):
        cell = make(name, 3, 6)
        inputs = torch.randn(2, 11, 3, dtype=torch.float64, requires_grad=True)
        results = (cell(inputs), cell.stepwise_forward(inputs, cell.initial_state(2), None, True))
        given, expected = (torch.autograd.grad(pick(*result).sum(), (inputs, cell.weight_ux)) for result in results)
        assert_close(given, expected)


def test_halves_and_detached_states_agree_without_reading_positions(monkeypatch):
    for name in ("legs", "legts", "lagts zoh", "legt", "lmut"):
        cell = make(name, 3, 6)
        inputs = torch.randn(4, 21, 3, dtype=torch.float64)
        whole, final = cell(inputs)
        assert cell.path == "chunks"
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "aminmax", None)
            first, state = cell(inputs[:, :10])
            state = type(state)(*(part.detach() for part in state))
            second, state = cell(inputs[:, 10:], state)
        assert_close(torch.cat([first, second], 1), whole)
        assert_close(state, final)


def test_rows_at_different_positions_run_step_by_step():
    cell = make("legs", 3, 6)
    inputs = torch.randn(3, 9, 3, dtype=torch.float64)
    _, state = cell(inputs, lengths=torch.tensor([9, 3, 4]))
    cell(inputs, state)
    assert "rows have different step sizes" in cell.path
    cell(inputs)
    assert cell.path == "chunks"


def test_autocast_is_no_worse_than_the_loop():
    for name in ("legs", "legt", "legs zoh", "legs all on"):
        cell = make(name, 3, 40, torch.float32)
        inputs, lengths = torch.randn(9, 30, 3), torch.randint(0, 31, (9,))
        exact = run(cell, inputs, lengths, loop=True)
        exact.pop("step", None)
        with torch.autocast("cpu", torch.bfloat16):
            given, loop = run(cell, inputs, lengths), run(cell, inputs, lengths, loop=True)
        assert given["outputs"].dtype == torch.float32
        ours, theirs = error(given, exact), error(loop, exact)
        assert all(value < max(0.05, 2 * theirs[result]) for result, value in ours.items()), name
        assert 1e-6 < sum(ours.values()) <= 1.2 * sum(theirs.values())


def test_parameters_in_half_precision():
    for name in ("legs", "legt"):
        cell, inputs = make(name, 3, 20).bfloat16(), torch.randn(3, 19, 3, dtype=torch.bfloat16)
        outputs, state = cell(inputs)
        expected, after = copy.deepcopy(cell).float()(inputs.float())
        assert (outputs.dtype, state.hidden.dtype, state.memory.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
        assert_close(outputs.float(), expected, rtol=0.05, atol=0.05)
        assert_close(state.memory, after.memory, rtol=0.1, atol=0.1)
        outputs.sum().backward()
        assert all(parameter.grad.dtype == torch.bfloat16 for parameter in cell.parameters())


def arguments(name, save=True):
    """Arguments of the operator, without padding, whose places in what is kept for backward are not written."""
    cell = make(name, 3, 6)
    inputs = torch.randn(2, 8, 3, dtype=torch.float64, requires_grad=True)
    state = [part.requires_grad_() for part in random_state(cell, 2)[:2]]
    given = cell.dynamics(inputs, cell.initial_state(2), True)
    constants = (given.get(key) for key in ("step_sizes", "generators", "step", "drive"))
    names = ("weight_ux", "weight_uh", "weight_um", "bias_u", "weight_hx", "weight_hm", "bias_h")
    settings = (0.5, cell.memory_activation, cell.hidden_activation, cell.gate == "G", cell.memory_output, None)
    return inputs, *state, *constants, torch.tensor([8, 8]), *(getattr(cell, name) for name in names), *settings, save


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["legs all on", "legt", "legs many memories"])
def test_the_operator_is_well_formed(name):
    torch.use_deterministic_algorithms(False)
    torch.library.opcheck(torch.ops.seqmem.memory_chunks.default, arguments(name))


def test_shapes_of_fake_tensors():
    for name, save in product(("legs all on", "legt", "legs many memories"), (True, False)):
        given = arguments(name, save)
        expected = torch.ops.seqmem.memory_chunks(*given)
        with FakeTensorMode() as mode:
            fake = (mode.from_tensor(part) if isinstance(part, torch.Tensor) else part for part in given)
            found = torch.ops.seqmem.memory_chunks(*fake)
        assert [part.shape for part in found] == [part.shape for part in expected]


def test_second_derivatives_are_refused():
    cell = make("legs", 3, 5)
    inputs = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(cell(inputs)[0].sum(), inputs, create_graph=True)
    with pytest.raises(NotImplementedError, match="differentiable once"):
        first.sum().backward()


def test_nothing_is_kept_without_a_gradient():
    results = torch.ops.seqmem.memory_chunks(*arguments("legs", save=False))
    assert [part.numel() for part in results[3:]] == [0, 0, 0]
    assert_close(results[:3], torch.ops.seqmem.memory_chunks(*arguments("legs"))[:3])


def test_constants_are_computed_once_and_freed(monkeypatch):
    made = []
    sizes = memory_chunks_constants.Sizes
    monkeypatch.setattr(memory_chunks, "Sizes", lambda *given: made.append(1) or sizes(*given))
    cell = LegS(3, 5, init_t=77)
    for _ in range(3):
        cell(torch.randn(2, 9, 3))[0].sum().backward()
    assert len(made) == 1
    monkeypatch.setattr(positions, "kept_on_host", lambda tensor: False)  # step sizes of a single call
    count = len(memory_chunks_constants._kept)
    outputs, _ = cell(torch.randn(2, 9, 3))
    assert len(memory_chunks_constants._kept) == count + 1
    outputs.sum().backward()
    del outputs
    gc.collect()
    assert len(memory_chunks_constants._kept) == count


def test_impulses_and_matrices_are_kept_within_a_bound(monkeypatch):
    store = memory_chunks_constants._Store()
    monkeypatch.setattr(memory_chunks_constants, "_store", store)
    cell, inputs = make("legs zoh", 2, 7), torch.randn(2, 17, 2, dtype=torch.float64)
    cell(inputs)
    one = sum(nbytes(value) for value in store._values.values())
    assert len(store._values) == 5
    monkeypatch.setattr(memory_chunks_constants, "MAX_BYTES", 2 * one)
    for init_t in range(1, 5):
        made = make("legs zoh", 2, 7, init_t=init_t)
        assert_equals_the_loop(made, 2, 17)
        assert sum(nbytes(value) for value in store._values.values()) <= 2 * one
    monkeypatch.setattr(memory_chunks_constants, "MAX_BYTES", one // 2)
    kept = list(store._values)
    made = make("legs zoh", 2, 7, init_t=9)
    assert_equals_the_loop(made, 2, 17)
    assert list(store._values) == kept


def test_impulses_are_dropped_with_their_step_sizes(monkeypatch):
    store = memory_chunks_constants._Store()
    monkeypatch.setattr(memory_chunks_constants, "_store", store)
    monkeypatch.setattr(positions, "kept_on_host", lambda tensor: False)  # step sizes of a single call
    make("legs", 2, 7)(torch.randn(2, 17, 2, dtype=torch.float64))
    gc.collect()
    assert not store._values
    assert store._size == 0


def test_other_settings_have_a_fallback_reason(monkeypatch):
    inputs = torch.zeros(1, 2, 3)
    assert not LegS(3, 4, discretization="zoh").fallback_reason(inputs)
    for cell, word in (
        (LegS(3, 4, architecture={"hh": True}), "matrix of its own"),
        (LegT(3, 4, trainable_scale=1.0), "learned"),
        (make_tiny("tlsi"), "different step sizes"),
    ):
        assert word in cell.fallback_reason(inputs)
    monkeypatch.setattr(support, "HAS_TRITON", False)
    assert "Triton is not installed" in LegS(3, 4).fallback_reason(inputs)


def test_transforms_run_step_by_step():
    cell, inputs = make("legs", 3, 5), torch.randn(2, 4, 3, dtype=torch.float64)
    given = torch.func.grad(lambda x: cell(x)[0].sum())(inputs)
    assert "torch.func" in cell.path
    inputs.requires_grad_()
    assert_close(given, torch.autograd.grad(cell(inputs)[0].sum(), inputs)[0])
    assert cell.path == "chunks"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["legs", "legt"])
def test_a_cell_compiles(name):
    cell, inputs = make(name, 3, 5), torch.randn(3, 9, 3, dtype=torch.float64)
    outputs = torch.compile(cell, backend="aot_eager")(inputs)[0]
    assert cell.path == "chunks"
    assert_close(outputs, cell(inputs)[0])


@pytest.fixture
def stand_ins(monkeypatch):
    """Let stand-ins for CUDA graphs run the groups of chunks."""
    found = Recomputed()
    graphs = captures.Graphs(found)
    monkeypatch.setattr(memory_chunks_graphs, "_plans", OrderedDict())
    monkeypatch.setattr(memory_chunks_graphs, "graphs_of", lambda tensor: graphs)
    return found


slow_graphs = [pytest.param(name, marks=pytest.mark.slow) for name in ("legs", "legts", "legt ungated", "lagt")]


@pytest.mark.parametrize("name", ["legs all on", "legt", *slow_graphs])
def test_graphs_of_groups(name, stand_ins):
    """The first call runs directly, the second captures, the third replays alone; shapes of groups matter, not of sequences."""
    cell = make(name, 2, 7)
    for steps, lengths in ((17, None), (17, None), (17, None), (23, None), (16, [16, 0, 5]), (16, [3, 16, 7])):
        inputs = torch.randn(3, steps, 2, dtype=torch.float64)
        lengths = None if lengths is None else torch.tensor(lengths)
        made = stand_ins.made
        assert_same(run(cell, inputs, lengths), run(cell, inputs, lengths, loop=True))
    assert stand_ins.made > made > 0  # only the second call with lengths captures
    assert stand_ins.replayed > stand_ins.made


def test_layers_share_graphs(stand_ins):
    cells = [make("legs", 6, 7), LegS(5, 7).double()]  # terms in x of many channels are no part of a graph
    made = []
    for _ in range(3):
        for cell in cells:
            inputs = torch.randn(3, 16, cell.input_size, dtype=torch.float64)
            assert_same(run(cell, inputs), run(cell, inputs, loop=True))
            made.append(stand_ins.made)
    assert made[0] == 0 < made[1] == made[-1]


def test_cells_of_different_step_sizes_share_graphs_but_not_matrices(stand_ins):
    for dt in (0.1, 0.1, 0.3):
        made = stand_ins.made
        assert_equals_the_loop(make("legt", 2, 7, dt=dt), 3, 16)
    assert stand_ins.made == made > 0


def test_graphs_that_do_not_fit_in_memory_are_not_made(stand_ins, monkeypatch):
    monkeypatch.setattr(captures, "MAX_BYTES", 0)
    for _ in range(3):
        assert_equals_the_loop(make("legs", 2, 7), 3, 16)
    assert stand_ins.made == 0
