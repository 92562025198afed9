"""The time loop of a cell by CUDA graphs, one for each number of steps in a chunk, replayed along the sequence.

A step is about ten small kernels, and launching them takes longer than running them. A graph launches all of a chunk at once.
The loop runs in chunks as :mod:`seqmem.sequence.time_chunks` describes, at the first call for some shapes directly and from the
second on by graphs, with the same kernels in the same order. A batch size that occurs once, such as that of a last short batch,
thus costs no capture.

A graph keeps its tensors at fixed addresses. All that it reads is copied there first: inputs, state, weights and buffers, which
may move or change between calls. All that it writes is copied before another graph runs, so that the graphs of a device share
the memory of their intermediate values.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from seqmem.data.masks import masked, valid_steps
from seqmem.ops.constants import nbytes
from seqmem.ops.gpu.captures import Graph, Graphs, device_graphs
from seqmem.ops.precision import autocast_active
from seqmem.ops.states import parts
from seqmem.sequence.schedules import split_schedule
from seqmem.sequence.time_chunks import SIZES, Chunk, Direct, Tensors, differentiable, run_chunks, split, weights_of
from seqmem.sequence.watch import kept_random_numbers, watched

MAX_GRAPH_BYTES = 2**29
"""Upper limit of the estimated memory of one graph; shorter chunks are used where a longer one would exceed it."""

_MAX_PLANS = 64
"""Shapes and modes of a cell that are remembered."""


class CapturedLoop:
    """Run a cell's time loop by CUDA graphs.

    Args:
        cell: the cell; its parameters and buffers are looked up at every call.
        graphs: of the device; None for those that all cells on the device of the inputs share.

    Attributes:
        used: whether the latest call replayed a graph.
        reason: why the latest call could not be captured; empty if it can.
    """

    def __init__(self, cell: Any, graphs: Graphs | None = None):
        self._cell = weakref.ref(cell)  # the cell holds the loop
        self._given_graphs = graphs
        self._plans: dict[Any, _Plan] = {}
        self.used, self.reason = False, ""

    def __call__(self, inputs: Tensor, state: Any, lengths: Tensor | None) -> tuple[Tensor, list[Tensor]] | None:
        """Compute a whole sequence.

        Args:
            inputs: (B, T, C).
            state: the state before the first step.
            lengths: (B,) valid steps of each row, or None.

        Returns:
            outputs (B, T, H) and the parts of the state after the last step, differentiable once. None if the loop cannot be
            captured: a step does what a graph cannot repeat, its schedule has numbers that differ from step to step, or the
            batch is empty.
        """
        cell: Any = self._cell()
        self.used, self.reason = False, ""
        batch_size, steps = inputs.shape[:2]
        schedule = split_schedule(cell.schedule(state, steps, False)) if batch_size and steps else None
        if schedule is None:
            self.reason = "numbers of the schedule differ" if batch_size and steps else "the batch is empty"
            return None
        mask = [] if lengths is None else [valid_steps(lengths, steps).T.contiguous()]
        projected = cell.project(masked(inputs, lengths).transpose(0, 1))
        tensors = Tensors(
            [projected, *mask, *schedule.stepwise],
            parts(state),
            [*schedule.shared, *(value for _, value in weights_of(cell))],
        )
        half = torch.get_autocast_dtype(inputs.device.type) if autocast_active(inputs.device) else None
        chunk = Chunk(cell, state, schedule.form, bool(mask), half, tensors)
        plan = self._plan(chunk, tensors, (schedule.form, bool(mask), half, cell.training))
        self.reason = plan.reason
        if plan.reason:
            return None
        runner: Any = Direct() if plan.graphs is None else _Replays(plan)
        outputs, *after = run_chunks(runner, chunk, tensors, plan.sizes)
        self.used = isinstance(runner, _Replays) and runner.used
        return outputs.transpose(0, 1), after

    def _plan(self, chunk: Chunk, tensors: Tensors, settings: Any) -> "_Plan":
        """Return how to run a chunk: without graphs at the first call for its shapes and modes."""
        shapes = [(value.shape[1:], value.dtype, value.device) for value in tensors.steps]
        others = [(value.shape, value.dtype, value.device) for value in (*tensors.state, *tensors.constants)]
        modes = (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.backends.cuda.matmul.fp32_precision,
        )
        key = repr((settings, modes, shapes, others))
        plan = self._plans.pop(key, None)
        if plan is None:
            plan = _Plan(settings, *_probed(chunk, tensors))
        elif plan.graphs is None and not hasattr(tensors.steps[0], "fake_mode"):
            plan.graphs = self._given_graphs or device_graphs(tensors.steps[0].device)
        if chunk.trains and not plan.trained:
            plan.trained = True
            plan.reason = plan.reason or _probed_backward(chunk, tensors)
        self._plans[key] = plan
        if len(self._plans) > _MAX_PLANS:
            del self._plans[next(iter(self._plans))]
        return plan


class _Plan:
    """How the chunks of a cell run for some shapes and modes.

    Attributes:
        settings: of the chunk; kept, so that its objects stay different from those of later calls.
        reason: why a step cannot be captured, or an empty string.
        saved_bytes: what one step saves for backward.
        result_bytes: the results of one step.
        sizes: numbers of steps in a chunk whose graph fits in memory.
        trained: backward of a step was looked at too.
        graphs: those of the device; None to run directly.
        constants: copies of the constants, at fixed addresses.
        captured: graphs by the number of steps, and by the gradients that are needed, None for a forward pass.
    """

    def __init__(self, settings: Any, reason: str, saved_bytes: int, result_bytes: int):
        self.settings, self.reason = settings, reason
        self.saved_bytes, self.result_bytes = saved_bytes, result_bytes
        self.sizes = tuple(size for size in SIZES if size == 1 or size * (saved_bytes + result_bytes) <= MAX_GRAPH_BYTES)
        self.trained = False
        self.graphs: Graphs | None = None
        self.constants: list[Tensor] = []
        self.captured: dict[Any, Graph] = {}

    def graph(self, key: tuple[int, Any]) -> Graph | None:
        """Return a graph of ``captured``, which counts as used; None if it was not captured, or was dropped."""
        graph = self.captured.get(key)
        if graph is None or graph.captured is None:
            return None
        if self.graphs is not None:
            graph.latest = self.graphs.passes  # no other graph of this pass takes its place
        return graph


class _Replays:
    """Compute the chunks of a sequence by graphs, or directly where one does not fit in memory.

    Attributes:
        used: whether a graph was replayed.
    """

    def __init__(self, plan: _Plan):
        self._plan = plan
        self.used = False

    @contextmanager
    def begin(self, chunk: Chunk, constants: list[Tensor]) -> Iterator[None]:
        """Return the context of a pass over a sequence, forward or backward."""
        plan = self._plan
        assert plan.graphs is not None
        with plan.graphs.in_turn(), torch.no_grad():
            if constants:
                plan.constants = plan.constants or _places(constants)
                torch._foreach_copy_(plan.constants, constants)
            self._chunk = chunk
            yield

    def forward(self, steps: list[Tensor], state: list[Tensor]) -> list[Tensor]:
        """Compute :meth:`Chunk.forward`."""
        given, counts = [*steps, *state], [len(steps), len(state)]
        key = len(steps[0]), None
        graph = self._plan.graph(key)
        if graph is None:
            graph = self._capture(key, given, lambda places: self._chunk.forward(self._tensors(places, counts)))
        if graph is None:
            return self._chunk.forward(Tensors(steps, state, self._plan.constants))
        if self._chunk.trains:
            self._capture_backward(given, counts, graph)
        self.used = True
        return graph(given)

    def backward(self, steps: list[Tensor], state: list[Tensor], grads: list[Tensor]) -> list[Tensor | None]:
        """Compute :meth:`Chunk.backward`."""
        graph = self._plan.graph((len(steps[0]), self._chunk.needs))
        if graph is None:
            return self._chunk.backward(Tensors(steps, state, self._plan.constants), grads)
        return graph([*steps, *state, *grads])

    def _capture_backward(self, given: list[Tensor], counts: list[int], forward: Graph) -> None:
        """Capture backward of a chunk, before it is needed: in the caller's thread."""
        key = len(given[0]), self._chunk.needs
        if self._plan.graph(key) is not None:
            return
        assert forward.captured is not None
        results = [value for value in forward.captured.results if value is not None and differentiable(value)]

        def function(places: list[Tensor]) -> list[Tensor | None]:
            return self._chunk.backward(self._tensors(places, counts), places[sum(counts) :])

        self._capture(key, [*given, *map(torch.zeros_like, results)], function)

    def _tensors(self, given: list[Tensor], counts: list[int]) -> Tensors:
        steps, state, *_ = split(given, counts)
        return Tensors(steps, state, self._plan.constants)

    def _capture(self, key: tuple[int, Any], given: list[Tensor], function: Callable[[list[Tensor]], Any]) -> Graph | None:
        """Capture a function of a chunk's tensors; return None if its graph does not fit in memory."""
        plan, graphs = self._plan, self._plan.graphs
        assert graphs is not None
        each = plan.result_bytes + (0 if key[1] is None else plan.saved_bytes)
        size = 2 * nbytes([*given, *plan.constants]) + key[0] * each
        if not graphs.admit(size):
            return None
        with torch.inference_mode(False), torch.no_grad():
            graph = Graph(graphs, _places(given), size)
            arguments = graph.arguments
            torch._foreach_copy_(arguments, given)
            graph.captured = graphs.capture(lambda: function(arguments), [*arguments, *plan.constants])
        plan.captured[key] = graph
        graphs.add(graph)
        return graph


def _probed(chunk: Chunk, tensors: Tensors) -> tuple[str, int, int]:
    """Run one step, and return why it cannot be captured, the bytes that it saves for backward, and those of its results."""
    saved: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        saved[storage._cdata] = storage.nbytes()
        return value

    with (
        _watched_step(tensors) as (reasons, first),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value),
        torch.enable_grad(),
    ):
        given = [value.requires_grad_(differentiable(value)) for value in (*first.steps, *first.state)]
        steps, state = split(given, first.counts[:2])
        results = chunk.forward(Tensors(steps, state, first.constants))
    known = {value.untyped_storage()._cdata for value in first.constants}
    own = sum(size for storage, size in saved.items() if storage not in known)
    return f"a step {reasons[0]}" if reasons else "", own, nbytes(results)


def _probed_backward(chunk: Chunk, tensors: Tensors) -> str:
    """Run backward of one step whose forward can be captured; return why backward cannot, or an empty string."""
    with _watched_step(tensors) as (reasons, first):
        results = chunk.forward(first)
        chunk.backward(first, [torch.ones_like(value) for value in results if differentiable(value)])
    return f"backward of a step {reasons[0]}" if reasons else ""


@contextmanager
def _watched_step(tensors: Tensors) -> Iterator[tuple[list[str], Tensors]]:
    """Yield ordinary tensors of the first step, and reasons why what runs with them cannot be captured.

    The state of random number generators does not change.
    """
    device = tensors.steps[0].device
    with kept_random_numbers(device), watched() as reasons, torch.inference_mode(False), torch.no_grad():
        steps, state = [value[:1].clone() for value in tensors.steps], [value.clone() for value in tensors.state]
        constants = [value.clone() if value.is_inference() else value.detach() for value in tensors.constants]
        yield reasons, Tensors(steps, state, constants)


def _places(values: list[Tensor]) -> list[Tensor]:
    """Return ordinary tensors of the same shapes, also in inference mode."""
    with torch.inference_mode(False):
        return [torch.empty_like(value, memory_format=torch.contiguous_format, requires_grad=False) for value in values]
