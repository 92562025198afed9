"""CUDA graphs of a device: how a function is captured, and a bound on the memory of all graphs."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, RLock
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqmem.ops.constants import collected

MAX_BYTES = 2**31
"""Upper limit of the estimated memory of all graphs of a device."""

IDLE_PASSES = 1000
"""A graph that has not run in as many passes over sequences may be dropped for another one."""


class Captured(NamedTuple):
    """A captured function.

    Attributes:
        replay: runs it again on the present values of its arguments, into the same results.
        results: tensors, or None where the function returned None.
    """

    replay: Callable[[], None]
    results: list[Tensor | None]


Function = Callable[[], list[Tensor | None]]
"""A function of tensors at fixed addresses."""

Capture = Callable[[Function, list[Tensor]], Captured]
"""Makes a graph of a function, given the tensors at fixed addresses that it reads or writes."""


class Graph:
    """A captured function with its arguments.

    Args:
        graphs: those of the device.
        arguments: tensors at fixed addresses, which the graph reads.
        size: estimated memory in bytes.

    Attributes:
        captured: the graph; None after it was dropped.
        latest: number of the latest pass that replayed it.
        size: estimated memory in bytes.
    """

    captured: Captured | None

    def __init__(self, graphs: "Graphs", arguments: list[Tensor], size: int):
        self.arguments, self.size = arguments, size
        self._graphs = graphs
        self.latest = graphs.passes
        self.captured = None

    def __call__(self, arguments: list[Tensor]) -> list[Any]:
        """Return the results for these arguments, valid until the next graph runs."""
        assert self.captured is not None
        self.latest = self._graphs.passes
        torch._foreach_copy_(self.arguments, arguments)
        self.captured.replay()
        return self.captured.results

    def drop(self) -> None:
        """Release the memory, as the end of this object does: not before the latest replay ends, see :class:`_Replay`."""
        self.captured, self.arguments = None, []


class Graphs:
    """The graphs of one device within a bound on their memory.

    Args:
        capture: makes a graph of a function.
        waits: returns a context in which kernels run after those of earlier such contexts, whatever the stream.
    """

    def __init__(self, capture: Capture, waits: Callable[[], Any] | None = None):
        self.capture = capture
        self.passes = 0
        self._waits = waits
        self._lock = RLock()  # backward runs in a thread of its own
        self._graphs: list[weakref.ref[Graph]] = []

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let one pass over a sequence run at a time: graphs share memory."""
        with self._lock:
            self.passes += 1
            if self._waits is None:
                yield
            else:
                with self._waits():
                    yield

    def admit(self, size: int) -> bool:
        """Return whether a graph of this size in bytes fits, after dropping those that have not run for long."""
        graphs = sorted(self.alive(), key=lambda graph: graph.latest)
        excess = sum(graph.size for graph in graphs) + size - MAX_BYTES
        for graph in graphs:
            if excess > 0 and self.passes - graph.latest > IDLE_PASSES:
                excess -= graph.size
                graph.drop()
        return excess <= 0

    def add(self, graph: "Graph") -> None:
        """Count a graph until it is dropped or its cell is deleted."""
        self._graphs = [weakref.ref(kept) for kept in (*self.alive(), graph)]

    def alive(self) -> list["Graph"]:
        """Return the graphs that can be replayed."""
        return [graph for reference in self._graphs if (graph := reference()) is not None and graph.captured is not None]


_of_devices: dict[torch.device, Graphs] = {}
_making = Lock()


def device_graphs(device: torch.device) -> Graphs:
    """Return the graphs that all cells on a CUDA device share, whatever the thread."""
    with _making:  # graphs of two objects would not wait for each other
        if device not in _of_devices:
            capture = _CudaCapture(device)
            _of_devices[device] = Graphs(capture, capture.after_earlier)
        return _of_devices[device]


class _CudaCapture:
    """Capture functions on one CUDA device, in one memory pool."""

    def __init__(self, device: torch.device):
        self._device, self._stream = device, torch.cuda.Stream(device)
        self._latest = torch.cuda.Event()
        self._pool = torch.cuda.graph_pool_handle()
        # The pool exists as long as a graph uses it.
        self._kept = self(lambda: [torch.zeros(1, device=device)], [])

    def __call__(self, function: Function, tensors: list[Tensor]) -> Captured:
        """Capture a function that has no influence outside its results and the given tensors."""
        with torch.cuda.device(self._device):
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                function()  # kernels are compiled, and libraries allocate their workspaces
            torch.cuda.current_stream().wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            # Other threads, such as those that copy batches, may use the device meanwhile.
            capturing = torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local")
            with collected() as constants, capturing:
                results = function()
            return Captured(_Replay(graph, [*tensors, *constants, *(value for value in results if value is not None)]), results)

    @contextmanager
    def after_earlier(self) -> Iterator[None]:
        """Let the kernels of this context run after those of earlier ones, whatever their streams."""
        with torch.cuda.device(self._device):
            torch.cuda.current_stream().wait_event(self._latest)
            try:
                yield
            finally:
                self._latest.record()


class _Replay:
    """Replay a graph on the current stream.

    A graph may be released while a replay runs: CUDA frees it after that (cuGraphExecDestroy), and the allocator reuses the
    memory of tensors after the latest work of all streams that were recorded for them, once each, also of a later replay.

    Args:
        graph: the graph.
        tensors: those that it reads or writes.
    """

    def __init__(self, graph: torch.cuda.CUDAGraph, tensors: list[Tensor]):
        self._graph, self._tensors = graph, tensors
        self._streams: set[torch.cuda.Stream] = set()

    def __call__(self) -> None:
        stream = torch.cuda.current_stream()
        if stream not in self._streams:
            self._streams.add(stream)
            for tensor in self._tensors:
                tensor.record_stream(stream)
        self._graph.replay()
