"""CUDA graphs of a device: how a function is captured, and a bound on the memory of all graphs."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from threading import RLock
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
        constants: other tensors that it reads.
    """

    replay: Callable[[], None]
    results: list[Tensor | None]
    constants: list[Tensor]


Function = Callable[[], list[Tensor | None]]
"""A function of tensors at fixed addresses."""


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
        """Release the memory."""
        if any(argument.is_cuda for argument in self.arguments):
            torch.cuda.synchronize(self.arguments[0].device)  # it may still run
        self.captured, self.arguments = None, []


class Graphs:
    """The graphs of one device within a bound on their memory.

    Args:
        capture: makes a graph of a function without arguments.
        waits: returns a context in which kernels run after those of earlier such contexts, whatever the stream.
    """

    def __init__(self, capture: Callable[[Function], Captured], waits: Callable[[], Any] | None = None):
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


@cache
def device_graphs(device: torch.device) -> Graphs:
    """Return the graphs that all cells on a CUDA device share."""
    capture = _CudaCapture(device)
    return Graphs(capture, capture.after_earlier)


class _CudaCapture:
    """Capture functions on one CUDA device, in one memory pool."""

    def __init__(self, device: torch.device):
        self._device, self._stream = device, torch.cuda.Stream(device)
        self._latest = torch.cuda.Event()
        self._pool = torch.cuda.graph_pool_handle()
        # The pool exists as long as a graph uses it.
        self._kept = self(lambda: [torch.zeros(1, device=device)])

    def __call__(self, function: Function) -> Captured:
        """Capture a function that has no influence outside its results."""
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
            return Captured(graph.replay, results, constants)

    @contextmanager
    def after_earlier(self) -> Iterator[None]:
        """Let the kernels of this context run after those of earlier ones, whatever their streams."""
        with torch.cuda.device(self._device):
            torch.cuda.current_stream().wait_event(self._latest)
            try:
                yield
            finally:
                self._latest.record()
