"""The bookkeeping around CUDA graphs, with a stand-in for the graph: it too keeps its tensors at fixed addresses."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close

from seqmem.cells import HMLSTM, LSTM, LegS, Recurrence
from seqmem.ops.states import parts
from seqmem.sequence.cuda_graph import CapturedLoop


class Graph:
    """Replays overwrite each other's values: a gradient is always that of the latest replay."""

    made = 0

    def __init__(self, loop, examples):
        Graph.made += 1
        self.loop, self.places = loop, examples

    def __call__(self, *arguments):
        graph = self

        class Replay(torch.autograd.Function):
            @staticmethod
            def forward(ctx, *values):
                with torch.no_grad():
                    for place, value in zip(graph.places, values, strict=True):
                        place.copy_(value)
                with torch.enable_grad():
                    graph.results = graph.loop(*graph.places)
                results = tuple(result.detach() for result in graph.results)
                ctx.mark_non_differentiable(
                    *(result for result in results if not (result.is_floating_point() or result.is_complex()))
                )
                return results

            @staticmethod
            def backward(ctx, *grads):
                pairs = [(r, g) for r, g in zip(graph.results, grads, strict=True) if r.requires_grad]
                asked = [place for place in graph.places if place.requires_grad]
                found = iter(grads_of(pairs, asked))
                return tuple(next(found) if place.requires_grad else None for place in graph.places)

        return Replay.apply(*arguments)


def grads_of(pairs, asked):
    results, grads = zip(*pairs, strict=True)
    return torch.autograd.grad(results, asked, grads, retain_graph=True, allow_unused=True)


class Nested(Recurrence):
    """A cell whose state has a complex part and a nested one."""

    input_size, output_size = 3, 2

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3))

    def initial_state(self, batch_size):
        real = self.weight.new_zeros(batch_size, 2)
        return real, [torch.complex(real, real), torch.zeros(batch_size, dtype=torch.int64)]

    def project(self, inputs):
        return inputs @ self.weight.T

    def advance(self, projected, state, scheduled):
        h, [z, count] = state
        z = (0.5 + 0.3j) * z + projected
        h = torch.tanh(h + z.real * z.imag + projected)
        return h, (h, [z, count + 1])


@pytest.fixture
def cell():
    torch.manual_seed(0)
    Graph.made = 0
    return LegS(3, 5).double()


def gradients(cell, loss):
    loss.backward()
    found = [parameter.grad.clone() for parameter in cell.parameters()]
    cell.zero_grad()
    return found


def stepwise(cell, inputs, state=None, lengths=None):
    fresh = state is None
    return cell.stepwise_forward(inputs, cell.initial_state(len(inputs)) if fresh else state, lengths, fresh)


@pytest.mark.parametrize("kind", [LSTM, LegS, Nested])
def test_replays_have_the_values_and_gradients_of_the_loop(kind):
    torch.manual_seed(0)
    Graph.made = 0
    cell = (Nested() if kind is Nested else kind(3, 5)).double()
    loop, padded = CapturedLoop(cell, Graph), torch.tensor([6, 0])
    for lengths in (None, padded, None, padded):
        inputs = torch.randn(2, 6, 3, dtype=torch.float64)
        outputs, after = loop(inputs, cell.initial_state(2), lengths, True)
        assert loop.used
        expected, state = stepwise(cell, inputs, None, lengths)
        assert_close(outputs, expected)
        assert_close(after, parts(state))
        results = [
            gradients(cell, values.square().sum() + sum(part.abs().square().sum() for part in states))
            for values, states in ((outputs, after), (expected, parts(state)))
        ]
        assert_close(*results)
        with torch.no_grad():
            for parameter in cell.parameters():
                parameter.add_(0.1)  # as an optimiser would
    assert Graph.made == 2


def test_a_sequence_that_continues_before_its_backward_is_not_overwritten(cell):
    loop = CapturedLoop(cell, Graph)
    inputs = torch.randn(2, 8, 3, dtype=torch.float64)
    first, after = loop(inputs[:, :4], cell.initial_state(2), None, True)
    state = type(cell.initial_state(2))(*after)
    second, _ = loop(inputs[:, 4:], state, None, False)
    assert not loop.used
    outputs = torch.cat([first, second], 1)
    expected = stepwise(cell, inputs)[0]
    assert_close(outputs, expected)
    assert_close(gradients(cell, outputs.square().sum()), gradients(cell, expected.square().sum()))


def test_a_dropped_result_does_not_block_the_next_replay(cell):
    loop = CapturedLoop(cell, Graph)
    inputs = torch.randn(2, 4, 3, dtype=torch.float64)
    loop(inputs, cell.initial_state(2), None, True)
    loop(inputs, cell.initial_state(2), None, True)
    assert loop.used


def test_a_gradient_that_another_replay_has_overwritten_is_refused(cell):
    loop = CapturedLoop(cell, Graph)
    inputs = torch.randn(2, 4, 3, dtype=torch.float64)
    outputs, _ = loop(inputs, cell.initial_state(2), None, True)
    outputs.sum().backward(retain_graph=True)
    loop(inputs, cell.initial_state(2), None, True)
    with pytest.raises(RuntimeError, match="the CUDA graph was replayed since this forward pass"):
        outputs.sum().backward()


def test_each_shape_and_mode_has_its_graph(cell):
    loop = CapturedLoop(cell, Graph)
    for shape in ((2, 4, 3), (2, 5, 3), (1, 4, 3), (2, 4, 3)):
        loop(torch.randn(shape, dtype=torch.float64), cell.initial_state(shape[0]), None, True)
    assert Graph.made == 3
    with torch.no_grad():
        outputs, _ = loop(torch.randn(2, 4, 3, dtype=torch.float64), cell.initial_state(2), None, True)
    assert Graph.made == 4
    assert not outputs.requires_grad


def test_a_loop_whose_capture_fails_runs_eagerly(cell):
    def refuse(loop, examples):
        raise RuntimeError("operation not permitted when stream is capturing")

    loop = CapturedLoop(cell, refuse)
    inputs = torch.randn(2, 4, 3, dtype=torch.float64)
    with pytest.warns(UserWarning, match="CUDA graph capture failed; running eagerly: operation not permitted"):
        outputs, _ = loop(inputs, cell.initial_state(2), None, True)
    assert not loop.used
    assert_close(outputs, stepwise(cell, inputs)[0])
    loop(inputs, cell.initial_state(2), None, True)  # without a second warning


def test_a_copy_has_a_loop_of_its_own(cell):
    cell._loop = CapturedLoop(cell, Graph)
    twin = copy.deepcopy(cell)
    assert twin._loop is None
    assert pickle.loads(pickle.dumps(cell))._loop is None


def test_the_number_of_graphs_is_limited(cell):
    loop = CapturedLoop(cell, Graph)
    for steps in (*range(1, 12), 1):
        with torch.no_grad():
            loop(torch.randn(2, steps, 3, dtype=torch.float64), cell.initial_state(2), None, True)
    assert Graph.made == 12
    assert len(loop._graphs) == 8


def test_a_buffer_that_was_moved_has_its_current_value():
    """A trace, like a graph, keeps the values of all tensors that are not its arguments."""
    torch.manual_seed(0)
    cell = HMLSTM(3, 5, num_layers=2, boundary="soft", slope_growth=1.0).double()
    inputs, state = torch.randn(2, 4, 3).double(), cell.initial_state(2)
    loop = CapturedLoop(cell, lambda function, examples: make_fx(function)(*examples))
    with torch.no_grad():
        before, _ = loop(inputs, state, None, True)
        cell._buffers["slope"] = cell.slope.clone()
        cell.on_epoch(4)
        after, _ = loop(inputs, state, None, True)
        assert_close(after, cell.stepwise_forward(inputs, state, None, True)[0])
    assert loop.used
    assert (after - before).abs().max() > 1e-3
