"""What is captured in a CUDA graph, and when."""

import copy
import pickle

import pytest
import torch
from torch.testing import assert_close

from seqmem import cells
from seqmem.cells import HMLSTM, RNN, LegS
from seqmem.ops import extension, implementations
from seqmem.ops.gpu.captures import Graphs
from seqmem.ops.states import mapped, parts
from seqmem.sequence import cuda_graph
from seqmem.sequence.cuda_graph import CapturedLoop
from tests.fake_graphs import Recomputed
from tests.sequence.cuda_graphs.loops import Nested, gradients, looped, make, sample, stepwise


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


class ReadsInBackward(torch.autograd.Function):
    """The identity, whose gradient depends on a value that the host reads."""

    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad if grad.sum().item() < 1e9 else -grad


def test_a_step_whose_backward_a_graph_cannot_repeat_is_not_captured_in_training(capture, on_cuda):
    class Reading(Nested):
        def advance(self, projected, state, scheduled):
            h = ReadsInBackward.apply(torch.tanh(state[0] + projected))
            return h, (h, state[1])

    cell, inputs = Reading().double(), torch.randn(2, 5, 3, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(2):
            cell(inputs)
    assert cell.path.endswith(", by CUDA graphs")
    made = capture.made
    for _ in range(3):
        found = cell(inputs)
        assert cell.path.endswith(
            ", without a CUDA graph: backward of a step reads values on the host (aten::_local_scalar_dense)"
        )
        assert_close(gradients(found, [cell.weight]), gradients(stepwise(cell, inputs), [cell.weight]))
    assert capture.made == made


def replicated(module, factor=1.0):
    """Return a replica as torch.nn.parallel.replicate makes it, with the weights times a factor."""
    replica = module._replicate_for_data_parallel()
    replica._parameters = {name: None for name, value in module._parameters.items() if value is None}
    replica._former_parameters = {name: factor * value for name, value in module._parameters.items() if value is not None}
    for name, value in replica._former_parameters.items():
        setattr(replica, name, value)
    for name, child in module.named_children():
        setattr(replica, name, replicated(child, factor))
    return replica


@pytest.mark.parametrize("name", cells.names())
def test_a_replica_of_data_parallel_has_the_values_of_its_original(on_cuda, name):
    cell = make(name)
    inputs = sample(cell, 4)
    for _ in range(2):
        expected = cell(inputs)
    found = replicated(cell)(inputs)
    assert_close(found[0], expected[0])
    assert_close(parts(found[1]), parts(expected[1]))


def test_a_replica_of_data_parallel_does_not_use_the_graphs_of_its_original(capture, on_cuda, cell):
    """torch.nn.parallel.replicate copies all attributes, and sets tensors in place of parameters."""
    inputs = sample(cell, 4)
    for _ in range(2):
        expected = cell(inputs)
    assert cell.path.endswith(", by CUDA graphs")
    made, replayed = capture.made, capture.replayed
    replica = replicated(cell, 2.0)
    for _ in range(2):
        outputs, _ = replica(inputs)
    assert (capture.made, capture.replayed) == (made, replayed)
    assert replica.path.endswith("without a CUDA graph: a replica of torch.nn.DataParallel exists for one call")
    assert_close(outputs, stepwise(replica, inputs)[0])
    assert (outputs - expected[0]).abs().max() > 1e-3
    assert_close(cell(inputs)[0], expected[0])
    assert cell.path.endswith(", by CUDA graphs")


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
