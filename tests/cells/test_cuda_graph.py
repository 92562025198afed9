"""The time loop by CUDA graphs, with stand-ins for the graphs."""

import copy
import gc
import inspect
import pickle
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from seqmem import cells
from seqmem.cells import GRU, HMLSTM, LMU, MGU, RNN, TLSI, LegS, Recurrence
from seqmem.ops import extension, implementations
from seqmem.ops.gpu import captures
from seqmem.ops.gpu.captures import Graphs
from seqmem.ops.states import mapped, parts
from seqmem.sequence import cuda_graph, watch
from seqmem.sequence.cuda_graph import CapturedLoop
from tests.cells.fake_graphs import WAITS, Recomputed, Traced


class Nested(Recurrence):
    """A cell whose state has a complex part and a nested one, and whose steps differ by numbers."""

    input_size, output_size = 3, 2
    numbers = False

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3))

    def initial_state(self, batch_size):
        real = self.weight.new_zeros(batch_size, 2)
        return real, [torch.complex(real, real), torch.zeros(batch_size, dtype=torch.int64)]

    def schedule(self, state, steps, fresh):
        return [t if self.numbers else None for t in range(steps)]

    def project(self, inputs):
        return inputs @ self.weight.T

    def advance(self, projected, state, scheduled):
        h, [z, count] = state
        z = (0.5 + 0.3j) * z + projected
        h = torch.tanh(h + z.real * z.imag + projected)
        return h, (h, [z, count + 1])


QUICK = ("hmlstm", "tlsi", "exprnn", "legt learned")
"""One cell of each kind of schedule, state and step."""


def all_cells(*quick):
    names = dict.fromkeys([*cells.names(), "legt learned", *quick])
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch, request):
    monkeypatch.setattr(cuda_graph, "SIZES", (4, 2, 1))
    if (
        extension.REASON and "reason" not in request.fixturenames
    ):  # the reference of the updates solves a system, no kernel does
        monkeypatch.setattr(watch, "_READS", frozenset())


@pytest.fixture
def capture():
    return Recomputed()


@pytest.fixture
def cell():
    torch.manual_seed(0)
    return LMU(3, 5).double()


def sample(cell, steps, batch_size=2, **options):
    inputs = torch.randn(batch_size, steps, 3, dtype=torch.float64, **options)
    if cell.timed:
        inputs[..., 0] = inputs[..., 0].abs().cumsum(1)
    return inputs


def loss_of(outputs, state):
    return outputs.square().sum() + sum(part.abs().square().sum() for part in parts(state))


def stepwise(cell, inputs, state=None, lengths=None):
    return cell.stepwise_forward(inputs, cell.initial_state(len(inputs)) if state is None else state, lengths, False)


def looped(loop, cell, inputs, state=None, lengths=None):
    return loop(inputs, cell.initial_state(len(inputs)) if state is None else state, lengths)


def gradients(result, leaves):
    found = torch.autograd.grad(loss_of(*result), leaves, allow_unused=True)
    return [torch.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(found, leaves, strict=True)]


def make(name):
    if name == "nested":
        return Nested().double()
    arguments = {"gru": {"reset_after": False}, "hmlstm": {"hidden_size": [4, 5], "num_layers": 2, "boundary": "soft"}}
    kind = cells.get(name.split()[0])
    learned = {"trainable_scale": 1.0} if name.endswith("learned") else {}
    return kind(3, **{"hidden_size": 5, **arguments.get(name, {}), **learned}).double()


@pytest.mark.parametrize("name", all_cells(*QUICK, "nested"))
def test_replays_have_the_values_and_gradients_of_the_loop(name, capture):
    torch.manual_seed(0)
    cell = make(name)
    loop = CapturedLoop(cell, Graphs(capture))
    for lengths in (None, torch.tensor([7, 0, 5])):
        for call in range(3):
            inputs = sample(cell, 7, 3).requires_grad_(not cell.timed)
            state = mapped(lambda part: torch.rand_like(part) if part.is_floating_point() else part, cell.initial_state(3))
            if cell.timed:
                state = state._replace(time=torch.zeros(3, dtype=torch.float64))
            leaves = [*cell.parameters(), *([] if cell.timed else [inputs])]
            found, expected = looped(loop, cell, inputs, state, lengths), stepwise(cell, inputs, state, lengths)
            assert loop.used == (call > 0)
            assert_close(found[0], expected[0])
            assert_close(found[1], parts(expected[1]))
            assert_close(gradients(found, leaves), gradients(expected, leaves))
            with torch.no_grad():
                for parameter in cell.parameters():
                    parameter.add_(0.01)  # as an optimiser would
    assert capture.made == 12  # forward and backward of 4, 2 and 1 steps, with and without a mask


@pytest.mark.parametrize("name", all_cells("tlsi"))
def test_steps_depend_on_the_arguments_of_the_graph_alone(name):
    """A trace, like a graph, keeps the values of all tensors that are not its arguments."""
    torch.manual_seed(0)
    cell = make(name)
    capture = Traced()
    loop = CapturedLoop(cell, Graphs(capture))
    lengths = torch.tensor([1, 2])
    for _ in range(3):
        inputs = sample(cell, 2)
        found, expected = looped(loop, cell, inputs, None, lengths), stepwise(cell, inputs, None, lengths)
        assert_close(found[0], expected[0])
        leaves = list(cell.parameters())
        assert_close(gradients(found, leaves), gradients(expected, leaves))
        twin = make(name)
        for mine, other in zip([*cell.parameters(), *cell.buffers()], [*twin.parameters(), *twin.buffers()], strict=True):
            mine.data = other.data.clone()  # at another address
    assert loop.used
    assert capture.made == 2
    waits = [operation for operation in capture.operations if any(name in operation for name in WAITS)]
    assert extension.REASON or not waits


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_every_length_is_cut_into_the_same_graphs(cell, capture, steps):
    loop = CapturedLoop(cell, Graphs(capture))
    for length in (7, 7, steps):
        inputs = sample(cell, length)
        found = looped(loop, cell, inputs)
    assert loop.used
    assert capture.made == 6
    assert_close(found[0], stepwise(cell, inputs)[0])


def test_a_first_call_and_a_replay_have_the_same_bits(cell, capture):
    inputs, leaves = sample(cell, 7), list(cell.parameters())
    loop = CapturedLoop(cell, Graphs(capture))
    first, second = (gradients(looped(loop, cell, inputs), leaves) for _ in range(2))
    assert loop.used
    assert_close(first, second, rtol=0, atol=0)


def test_gradients_are_not_overwritten_by_later_replays(cell, capture):
    loop, batches = CapturedLoop(cell, Graphs(capture)), [sample(cell, 7) for _ in range(4)]
    for inputs in batches:  # gradients accumulate
        loss_of(*looped(loop, cell, inputs)).backward()
    found = [parameter.grad for parameter in cell.parameters()]
    expected = torch.autograd.grad(sum(loss_of(*stepwise(cell, inputs)) for inputs in batches), list(cell.parameters()))
    assert_close(found, list(expected))
    before = [grad.clone() for grad in found]
    gradients(looped(loop, cell, batches[0]), list(cell.parameters()))
    assert_close(found, before, rtol=0, atol=0)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_forward_passes_may_precede_their_backward_passes(cell, capture, order):
    loop = CapturedLoop(cell, Graphs(capture))
    looped(loop, cell, sample(cell, 7))
    batches = [sample(cell, 7) for _ in range(2)]
    results = [looped(loop, cell, inputs) for inputs in batches]
    kept = [result[0].detach().clone() for result in results]
    for k in order:
        expected = gradients(stepwise(cell, batches[k]), list(cell.parameters()))
        assert_close(gradients(results[k], list(cell.parameters())), expected)
    assert_close([result[0] for result in results], kept, rtol=0, atol=0)


def test_a_gradient_flows_through_a_carried_state(cell, capture):
    loop, inputs = CapturedLoop(cell, Graphs(capture)), sample(cell, 12)
    for _ in range(2):
        first, after = looped(loop, cell, inputs[:, :6])
        second, last = looped(loop, cell, inputs[:, 6:], type(cell.initial_state(2))(*after))
    assert loop.used
    leaves = list(cell.parameters())
    found = gradients((torch.cat([first, second], 1), last), leaves)
    assert_close(found, gradients(stepwise(cell, inputs), leaves))


def test_cells_of_one_device_share_memory_but_not_results(capture):
    torch.manual_seed(0)
    graphs = Graphs(capture)
    models = [RNN(3, 5).double(), MGU(3, 4).double(), RNN(3, 5).double()]
    loops = [CapturedLoop(model, graphs) for model in models]
    for _ in range(3):
        batches = [sample(model, 9) for model in models]
        results = [looped(loop, model, inputs) for loop, model, inputs in zip(loops, models, batches, strict=True)]
        for model, inputs, result in zip(models, batches, results, strict=True):
            leaves = list(model.parameters())
            assert_close(gradients(result, leaves), gradients(stepwise(model, inputs), leaves))
    assert all(loop.used for loop in loops)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_modes_without_gradients_share_the_graphs_of_forward(cell, capture, mode):
    loop, leaves = CapturedLoop(cell, Graphs(capture)), list(cell.parameters())
    for _ in range(2):
        with mode():
            inputs = sample(cell, 4)
            outputs, _ = looped(loop, cell, inputs)
            assert not outputs.requires_grad
            assert_close(outputs, stepwise(cell, inputs)[0])
    assert capture.made == 1
    inputs = sample(cell, 4)
    assert_close(gradients(looped(loop, cell, inputs), leaves), gradients(stepwise(cell, inputs), leaves))
    assert loop.used
    assert capture.made == 2


@pytest.mark.parametrize("kind", [RNN, LegS, HMLSTM, cells.ExpRNN])
def test_autocast_has_graphs_of_its_own(capture, kind):
    torch.manual_seed(0)
    cell = kind(3, 8)
    loop, inputs, leaves = CapturedLoop(cell, Graphs(capture)), sample(cell, 6).float(), list(cell.parameters())
    single = [gradients(looped(loop, cell, inputs), leaves) for _ in range(2)][-1]
    made = capture.made
    for call in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            found, expected = looped(loop, cell, inputs), stepwise(cell, inputs)
            assert loop.used == (call > 0)
            assert found[0].dtype == expected[0].dtype
            assert_close(found, (expected[0], parts(expected[1])), rtol=0, atol=0)
            if call == 2:  # backward may lie within autocast
                values = gradients(found, leaves)
        values = values if call == 2 else gradients(found, leaves)
        for value, exact in zip(values, gradients(expected, leaves), strict=True):
            assert (value - exact).norm() <= 0.03 * exact.norm()  # sums of gradients in half precision
        with torch.no_grad():
            for parameter in cell.parameters():
                parameter.mul_(1.01)
    assert capture.made == 2 * made
    assert len(single) == len(leaves)


def test_the_gradients_that_are_needed_decide_about_the_graph(cell, capture):
    loop = CapturedLoop(cell, Graphs(capture))
    cell.weight_hm.requires_grad_(False)
    for given in (False, False, True, True):
        inputs = sample(cell, 4).requires_grad_(given)
        leaves = [leaf for leaf in (*cell.parameters(), inputs) if leaf.requires_grad]
        found, expected = looped(loop, cell, inputs), stepwise(cell, inputs)
        assert_close(gradients(found, leaves), gradients(expected, leaves))
    assert cell.weight_hm.grad is None
    cell.weight_hm.requires_grad_(True)
    inputs, leaves = sample(cell, 4), list(cell.parameters())
    assert_close(gradients(looped(loop, cell, inputs), leaves), gradients(stepwise(cell, inputs), leaves))
    assert capture.made == 3  # one forward; backward with and without the weight


def test_a_frozen_cell_has_no_graph_of_backward(cell, capture):
    loop = CapturedLoop(cell.requires_grad_(False), Graphs(capture))
    for _ in range(2):
        outputs, _ = looped(loop, cell, sample(cell, 4))
    assert loop.used
    assert not outputs.requires_grad
    assert capture.made == 1
    state = mapped(lambda part: part.requires_grad_(part.is_floating_point()), cell.initial_state(2))
    inputs = sample(cell, 4)
    leaves = [state.hidden, state.memory]
    assert_close(gradients(looped(loop, cell, inputs, state), leaves), gradients(stepwise(cell, inputs, state), leaves))


def test_only_a_part_of_the_results_may_be_used(cell, capture):
    loop, leaves = CapturedLoop(cell, Graphs(capture)), list(cell.parameters())
    for _ in range(2):
        inputs = sample(cell, 5)
        found, expected = looped(loop, cell, inputs), stepwise(cell, inputs)
        pairs = ((found[0][:, -1].sum(), expected[0][:, -1].sum()), (found[1][1].sum(), expected[1].memory.sum()))
        for mine, theirs in pairs:
            results = [torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True) for value in (mine, theirs)]
            assert_close(*([torch.zeros(()) if g is None else g for g in result] for result in results))


def test_a_second_derivative_is_refused(cell, capture):
    loop = CapturedLoop(cell, Graphs(capture))
    outputs, _ = looped(loop, cell, sample(cell, 4))
    [first, *_] = torch.autograd.grad(outputs.square().sum(), list(cell.parameters()), create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_a_last_short_batch_is_captured_when_it_occurs_again(cell, capture):
    loop, made = CapturedLoop(cell, Graphs(capture)), []
    for batch_size in (4, 4, 4, 3, 4, 4, 4, 3):
        inputs = sample(cell, 4, batch_size)
        assert_close(looped(loop, cell, inputs)[0], stepwise(cell, inputs)[0])
        made.append(capture.made)
    assert made == [0, 2, 2, 2, 2, 2, 2, 4]


def test_an_empty_batch_and_numbers_by_step_are_not_captured(cell, capture):
    loop = CapturedLoop(cell, Graphs(capture))
    assert looped(loop, cell, sample(cell, 4, 0)) is None
    assert looped(loop, cell, sample(cell, 0)) is None
    numbered = Nested().double()
    numbered.numbers = True
    assert looped(CapturedLoop(numbered, Graphs(capture)), numbered, sample(numbered, 4)) is None
    assert looped(CapturedLoop(numbered, Graphs(capture)), numbered, sample(numbered, 1)) is not None


STEPS = {
    "draws random numbers (aten::bernoulli.p)": lambda h: h * h.detach().bernoulli(0.5),
    "draws random numbers (aten::rand)": lambda h: h + torch.rand(2, 2),
    "reads values on the host (aten::_local_scalar_dense)": lambda h: h if h.sum().item() < 0 else -h,
    "reads values on the host (aten::nonzero)": lambda h: h + len(h.nonzero()),
    "reads values on the host (aten::index.Tensor)": lambda h: h + h[h > 0].sum(),
    "reads values on the host (aten::_linalg_check_errors)": lambda h: (
        torch.linalg.solve(torch.eye(2).double() + h.T @ h, h.T).T
    ),
    "reads values on the host (aten::linalg_matrix_exp)": lambda h: h @ torch.linalg.matrix_exp(h.T @ h),
    "copies from cpu to meta (aten::_to_copy)": lambda h: h + 0 * len(torch.ones(2).to("meta")),
    "copies from cpu to meta (aten::lift_fresh)": lambda h: (
        h + 0 * len(torch.ops.aten.lift_fresh.default(torch.ones(2, device="meta")))  # as torch.tensor(..., device="cuda")
    ),
}


@pytest.mark.parametrize("reason", STEPS)
def test_a_step_that_a_graph_cannot_repeat_is_not_captured(capture, on_cuda, reason):
    class Drawing(Nested):
        def advance(self, projected, state, scheduled):
            h = torch.tanh(STEPS[reason](state[0] + projected))
            return h, (h, state[1])

    cell, inputs = Drawing().double(), torch.randn(2, 5, 3, dtype=torch.float64)
    for seed in range(3):
        torch.manual_seed(seed)
        outputs, _ = cell(inputs)
        assert cell.path.endswith(f", without a CUDA graph: a step {reason}")
        torch.manual_seed(seed)
        assert_close(outputs, stepwise(cell, inputs)[0], rtol=0, atol=0)
        outputs.sum().backward()
    assert capture.made == 0


def test_sampled_boundaries_are_drawn_outside_the_graph(capture):
    cell = HMLSTM(3, 5, num_layers=2, boundary="sample").double()
    loop, inputs = CapturedLoop(cell, Graphs(capture)), sample(cell, 9)
    for seed in (1, 2, 3):
        torch.manual_seed(seed)
        found, _ = looped(loop, cell, inputs)
        torch.manual_seed(seed)
        assert_close(found, stepwise(cell, inputs)[0])
    assert loop.used


def test_a_value_that_changes_between_calls_is_current(capture):
    cell = HMLSTM(3, 5, num_layers=2, boundary="soft", slope_growth=1.0).double()
    loop, inputs = CapturedLoop(cell, Graphs(capture)), sample(cell, 4)
    before = [looped(loop, cell, inputs)[0] for _ in range(2)][-1]
    cell._buffers["slope"] = cell.slope.clone()
    cell.on_epoch(4)
    after, _ = looped(loop, cell, inputs)
    assert loop.used
    assert_close(after, stepwise(cell, inputs)[0])
    assert (after - before).abs().max() > 1e-3
    cell.load_state_dict(HMLSTM(3, 5, num_layers=2, boundary="soft").double().state_dict(), assign=True)
    assert_close(looped(loop, cell, inputs)[0], stepwise(cell, inputs)[0])
    assert loop.used
    single = inputs.float()
    assert_close(looped(loop, cell.float(), single)[0], stepwise(cell, single)[0])
    assert not loop.used


def test_rows_may_stand_at_different_positions(capture):
    cell = LegS(3, 5, init_t=1, max_length=6).double()
    loop = CapturedLoop(cell, Graphs(capture))
    for positions in ([0, 5], [3, 3], [7, 1]):
        inputs, state = sample(cell, 5), cell.initial_state(2)._replace(step=torch.tensor(positions))
        assert_close(looped(loop, cell, inputs, state)[0], stepwise(cell, inputs, state)[0])
    assert loop.used


def test_a_large_graph_has_fewer_steps(cell, capture, monkeypatch):
    loop = CapturedLoop(cell, Graphs(capture))
    looped(loop, cell, sample(cell, 4))
    [plan] = loop._plans.values()
    assert plan.sizes == (4, 2, 1)
    assert plan.saved_bytes > 8 * 2 * 5
    monkeypatch.setattr(cuda_graph, "MAX_GRAPH_BYTES", 3 * (plan.saved_bytes + plan.result_bytes))
    other = CapturedLoop(cell, Graphs(capture))
    for _ in range(2):
        inputs = sample(cell, 9)
        found = looped(other, cell, inputs)
    assert other.used
    assert capture.made == 4
    assert_close(found[0], stepwise(cell, inputs)[0])


def test_the_memory_of_all_graphs_is_bounded(capture, monkeypatch):
    torch.manual_seed(0)
    graphs = Graphs(capture)
    models = [RNN(3, 5).double() for _ in range(3)]
    loops = [CapturedLoop(model, graphs) for model in models]

    def train(k):
        inputs, leaves = sample(models[k], 5), list(models[k].parameters())
        result = looped(loops[k], models[k], inputs)
        assert_close(gradients(result, leaves), gradients(stepwise(models[k], inputs), leaves))
        return loops[k].used

    assert [train(0), train(0)] == [False, True]
    size = sum(graph.size for graph in graphs.alive())
    monkeypatch.setattr(captures, "MAX_BYTES", int(2.5 * size))
    assert [train(k) for k in (1, 1, 2, 2)] == [False, True, False, True]
    assert sum(graph.size for graph in graphs.alive()) <= 2.5 * size  # parts of the third run directly
    monkeypatch.setattr(captures, "IDLE_PASSES", 3)
    train(1)
    assert [train(2), train(2)] == [True, True]
    [plan] = loops[0]._plans.values()
    assert any(
        graph.captured is None for graph in plan.captured.values()
    )  # those that had not run for the longest time made room
    assert train(0)
    assert sum(graph.size for graph in graphs.alive()) <= 2.5 * size
    monkeypatch.setattr(captures, "MAX_BYTES", 0)
    fourth = RNN(3, 5).double()
    loop, inputs = CapturedLoop(fourth, graphs), sample(fourth, 5)
    for _ in range(3):
        found = looped(loop, fourth, inputs)
        assert not loop.used
    assert_close(found[0], stepwise(fourth, inputs)[0])


def test_graphs_are_released_with_their_cell(capture):
    graphs = Graphs(capture)
    cell = RNN(3, 5).double()
    loop = CapturedLoop(cell, graphs)
    for _ in range(2):
        looped(loop, cell, sample(cell, 4))
    assert graphs.alive()
    capture._results.clear()
    del loop, cell
    gc.collect()  # the stand-in for a graph holds the cell, which holds the graph
    assert not graphs.alive()


def test_each_device_has_graphs_of_its_own(cell, monkeypatch):
    made = {}
    monkeypatch.setattr(cuda_graph, "device_graphs", lambda device: made.setdefault(device, Graphs(Recomputed())))
    loop, inputs, weights = CapturedLoop(cell), sample(cell, 4), copy.deepcopy(cell.state_dict())
    for device in ("cpu", "meta", "cpu"):
        cell.load_state_dict({name: value.to(device) for name, value in weights.items()}, assign=True)
        for _ in range(2):
            outputs, _ = looped(loop, cell, inputs.to(device))
            assert outputs.device.type == device
    assert loop.used
    assert {device.type: graphs.capture.made for device, graphs in made.items()} == {"cpu": 2, "meta": 2}
    assert_close(outputs, stepwise(cell, inputs)[0])


def test_a_copy_has_a_loop_of_its_own(cell, capture):
    cell._loop = CapturedLoop(cell, Graphs(capture))
    twin = copy.deepcopy(cell)
    assert twin._loop is None
    assert pickle.loads(pickle.dumps(cell))._loop is None


@pytest.fixture
def on_cuda(monkeypatch, capture):
    """The CPU takes the way of CUDA tensors: graphs, and no compiled sequence."""
    graphs = Graphs(capture)
    monkeypatch.setattr(cuda_graph, "device_graphs", lambda device: graphs)
    monkeypatch.setattr(implementations, "TABLE", {})
    rows = [row._replace(fallback_reason=lambda *given: "") for row in implementations.LOOPS if "captured" in row.method]
    monkeypatch.setattr(implementations, "LOOPS", rows)
    return graphs


@pytest.mark.parametrize("kind", [GRU, TLSI])
def test_a_model_of_two_layers_trains_as_step_by_step(on_cuda, monkeypatch, kind):
    losses = []
    for captured in (True, False):
        if not captured:
            monkeypatch.setattr(Recurrence, "captured_forward", Recurrence.stepwise_forward)
        torch.manual_seed(0)
        layers = nn.ModuleList([kind(3, 6), kind(6 + kind.timed, 5)]).double()
        optimizer = torch.optim.Adam(layers.parameters(), 1e-2)
        for step in range(6):
            lengths = torch.tensor([7, 6 - step])
            outputs = torch.randn(2, 7, 3 - kind.timed, dtype=torch.float64)
            times = outputs[..., 0].abs().cumsum(1)
            for layer in layers:
                outputs, _ = layer(outputs, lengths=lengths, times=times if kind.timed else None)
            loss = (outputs - 0.3).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        if captured:
            assert layers[0].path.endswith(", by CUDA graphs")
    assert_close(losses[:6], losses[6:], rtol=1e-12, atol=0)
    assert losses[5] != losses[0]


def test_within_a_capture_of_the_caller_the_loop_runs_as_it_is(on_cuda, capture, cell, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    inputs = sample(cell, 4)
    for _ in range(3):
        outputs, _ = cell(inputs)
    assert capture.made == 0
    assert_close(outputs, stepwise(cell, inputs)[0])


def test_what_cannot_be_captured_has_a_reason():
    [graph] = [row for row in implementations.LOOPS if row.method == "captured_forward"]
    with torch._subclasses.FakeTensorMode():
        inputs = torch.zeros(1, 2, 3, device="cuda")
    with extension.reference_only("asked for"):
        assert graph.fallback_reason(inputs, True) == "asked for"
    if not extension.FORCED:
        assert graph.fallback_reason(inputs, True) == ""
        assert graph.fallback_reason(inputs, False) == "a step draws random numbers or waits for the GPU"
        reasons = []
        torch.vmap(lambda row: reasons.append(graph.fallback_reason(inputs, True)) or row)(torch.zeros(2))
        assert reasons == ["a transform of torch.func is active"]
    assert graph.fallback_reason(torch.zeros(1, 2, 3), True) == "a CUDA graph is for cuda tensors; the inputs are on cpu"


class Stream:
    """A stream or an event of a GPU that does not exist."""

    def __init__(self, *given):
        self.log = []

    def __getattr__(self, name):
        return lambda *given: self.log.append(name)


def test_a_capture_follows_a_warm_up_on_its_stream(monkeypatch):
    calls, inside = [], []
    signature = inspect.signature(torch.cuda.graph.__init__)

    @contextmanager
    def graph(*given, **options):
        assert signature.bind(None, *given, **options).arguments["capture_error_mode"] == "thread_local"
        inside.append("graph")
        yield
        inside.pop()

    @contextmanager
    def stream(chosen):
        inside.append("stream")
        yield
        inside.pop()

    changes = {"Stream": Stream, "Event": Stream, "CUDAGraph": Stream, "graph": graph, "stream": stream}
    changes |= {"current_stream": Stream, "graph_pool_handle": object, "device": lambda device: nullcontext()}
    for name, value in changes.items():
        monkeypatch.setattr(torch.cuda, name, value)
    capture = captures._CudaCapture(torch.device("cpu"))
    captured = capture(lambda: calls.append(list(inside)) or [torch.ones(1), None])
    assert calls == [["stream"], ["graph"]]
    assert captured.results == [torch.ones(1), None]
    with Graphs(capture, capture.after_earlier).in_turn():
        assert capture._latest.log == []
    assert capture._latest.log == ["record"]
    captured.replay()
