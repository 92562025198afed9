"""The memory of CUDA graphs, their release, and the streams that they are captured and replayed on."""

import gc
import inspect
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from seqmem.cells import RNN
from seqmem.ops.constants import on_device
from seqmem.ops.gpu import captures
from seqmem.ops.gpu.captures import Graphs
from seqmem.sequence import cuda_graph
from seqmem.sequence.cuda_graph import CapturedLoop
from tests.sequence.cuda_graphs.loops import gradients, looped, sample, stepwise


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
    # Those that had not run for the longest time made room.
    assert any(graph.captured is None for graph in plan.captured.values())
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


def test_threads_share_the_graphs_of_a_device(monkeypatch):
    """Graphs of two objects would replay at the same time in the same memory."""
    made = []

    class Slow:
        after_earlier = None

        def __init__(self, device):
            time.sleep(0.02)
            made.append(device)

    monkeypatch.setattr(captures, "_CudaCapture", Slow)
    monkeypatch.setattr(captures, "_of_devices", {})
    devices = [torch.device("cuda", index) for index in (0, 0, 0, 1)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(captures.device_graphs, devices))
    assert found[0] is found[1] is found[2] is not found[3]
    assert sorted(device.index for device in made) == [0, 1]


class Stream:
    """A stream or an event of a GPU that does not exist."""

    def __init__(self, *given):
        self.log = []

    def __getattr__(self, name):
        return lambda *given: self.log.append(name)


@pytest.fixture
def gpu(monkeypatch):
    """Stand-ins for what a capture calls; log of the tensors that were recorded for the streams that replayed them."""
    signature = inspect.signature(torch.cuda.graph.__init__)
    found = SimpleNamespace(inside=[], stream=Stream(), recorded=[])

    @contextmanager
    def graph(*given, **options):
        assert signature.bind(None, *given, **options).arguments["capture_error_mode"] == "thread_local"
        found.inside.append("graph")
        yield
        found.inside.pop()

    @contextmanager
    def stream(chosen):
        found.inside.append("stream")
        yield
        found.inside.pop()

    changes = {"Stream": Stream, "Event": Stream, "CUDAGraph": Stream, "graph": graph, "stream": stream}
    changes |= {"current_stream": lambda: found.stream, "graph_pool_handle": object, "device": lambda device: nullcontext()}
    for name, value in changes.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(Tensor, "record_stream", lambda tensor, stream: found.recorded.append((tensor, stream)))
    return found


def test_a_capture_follows_a_warm_up_on_its_stream(gpu):
    calls = []
    capture = captures._CudaCapture(torch.device("cpu"))
    captured = capture(lambda: calls.append(list(gpu.inside)) or [torch.ones(1), None], [])
    assert calls == [["stream"], ["graph"]]
    assert captured.results == [torch.ones(1), None]
    with Graphs(capture, capture.after_earlier).in_turn():
        assert capture._latest.log == []
    assert capture._latest.log == ["record"]


@on_device
def one_and_a_half():
    return torch.tensor(1.5)


def test_what_a_replay_uses_is_kept_until_the_streams_that_replayed_it_are_done(gpu):
    """A graph may die with its cell while a stream other than that of its capture replays it."""
    argument, result = torch.ones(2), torch.ones(3)
    capture = captures._CudaCapture(torch.device("cpu"))
    constant = one_and_a_half(argument)
    captured = capture(lambda: [result if one_and_a_half(argument) is constant else None, None], [argument])
    assert not gpu.recorded
    first, second = gpu.stream, Stream()
    for stream in (first, second, second, first):
        gpu.stream = stream
        captured.replay()
    for stream, recorded in ((first, gpu.recorded[: len(gpu.recorded) // 2]), (second, gpu.recorded[len(gpu.recorded) // 2 :])):
        assert {id(tensor) for tensor, _ in recorded} == {id(argument), id(constant), id(result)}
        assert all(kept is stream for _, kept in recorded)
