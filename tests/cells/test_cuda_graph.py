"""The bookkeeping around CUDA graphs, with a stand-in for the graph: like one, it has its numbers in fixed places."""

import copy
import pickle

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close

from seqmem.cells import HMLSTM, LSTM, LegS
from seqmem.sequence.cuda_graph import CapturedLoop


class Graph:
    """Replays overwrite each other's numbers: a gradient is always that of the latest replay."""

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
                ctx.mark_non_differentiable(*(result for result in results if not result.is_floating_point()))
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


@pytest.fixture(params=[LegS, LSTM])
def cell(request):
    torch.manual_seed(0)
    Graph.made = 0
    return request.param(3, 5).double()


def gradients(cell, outputs):
    outputs.square().sum().backward()
    found = [parameter.grad.clone() for parameter in cell.parameters()]
    cell.zero_grad()
    return found


def stepwise(cell, inputs, state=None, lengths=None):
    fresh = state is None
    return cell.stepwise_forward(inputs, cell.initial_state(len(inputs)) if fresh else state, lengths, fresh)


@pytest.mark.parametrize("lengths", [None, torch.tensor([6, 0])])
def test_replays_give_the_loops_values_and_gradients(cell, lengths):
    loop = CapturedLoop(cell, Graph)
    for _ in range(3):
        inputs = torch.randn(2, 6, 3, dtype=torch.float64)
        outputs, parts = loop(inputs, cell.initial_state(2), lengths, True)
        assert loop.used
        expected, state = stepwise(cell, inputs, None, lengths)
        assert_close(outputs, expected)
        for part, wanted in zip(parts, state, strict=True):
            assert_close(part, wanted)
        assert_close(gradients(cell, outputs), gradients(cell, expected))
        with torch.no_grad():
            for parameter in cell.parameters():
                parameter.add_(0.1)  # as an optimiser would
    assert Graph.made == 1


def test_a_sequence_carried_on_before_its_gradient_is_not_spoilt(cell):
    loop = CapturedLoop(cell, Graph)
    inputs = torch.randn(2, 8, 3, dtype=torch.float64)
    first, parts = loop(inputs[:, :4], cell.initial_state(2), None, True)
    state = type(cell.initial_state(2))(*parts)
    second, _ = loop(inputs[:, 4:], state, None, False)
    assert not loop.used
    outputs = torch.cat([first, second], 1)
    expected = stepwise(cell, inputs)[0]
    assert_close(outputs, expected)
    assert_close(gradients(cell, outputs), gradients(cell, expected))


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
    with pytest.raises(RuntimeError, match="run again since"):
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


def test_what_cannot_be_captured_runs_as_it_is(cell):
    def refuse(loop, examples):
        raise RuntimeError("operation not permitted when stream is capturing")

    loop = CapturedLoop(cell, refuse)
    inputs = torch.randn(2, 4, 3, dtype=torch.float64)
    with pytest.warns(UserWarning, match="was not captured in a CUDA graph"):
        outputs, _ = loop(inputs, cell.initial_state(2), None, True)
    assert not loop.used
    assert_close(outputs, stepwise(cell, inputs)[0])
    loop(inputs, cell.initial_state(2), None, True)  # and warns no more


def test_a_copy_has_a_loop_of_its_own(cell):
    cell._loop = CapturedLoop(cell, Graph)
    twin = copy.deepcopy(cell)
    assert twin._loop is None
    assert pickle.loads(pickle.dumps(cell))._loop is None


def test_few_graphs_are_kept(cell):
    loop = CapturedLoop(cell, Graph)
    for steps in (*range(1, 12), 1):
        with torch.no_grad():
            loop(torch.randn(2, steps, 3, dtype=torch.float64), cell.initial_state(2), None, True)
    assert Graph.made == 12
    assert len(loop._graphs) == 8


def test_a_buffer_that_was_moved_is_read_anew():
    """A trace holds what it reads beside its arguments as it was, as a graph does."""
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
