"""Groups of chunks by CUDA graphs: launching the kernels of a chunk one by one takes longer than running them.

A graph has all its tensors at fixed addresses. The arguments of a group are copied there, and its results from there.
Groups of the same shapes share a graph, whatever their position, the length of the sequence and the layer; the first call
for some shapes runs directly, so that a batch size that occurs once costs no capture.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from seqmem.ops.constants import nbytes
from seqmem.ops.gpu.captures import Graph, Graphs, device_graphs
from seqmem.ops.gpu.memory_chunks_groups import backward_group, forward_group
from seqmem.ops.gpu.memory_chunks_plain import Tables
from seqmem.ops.gpu.memory_chunks_transitions import Transition

_OF_TRANSITION = ("factor", "uh", "um", "generators", "stacked", "end", "folded", "feedback", "entering")
_CONSTANT = (*(f"part_{name}" for name in _OF_TRANSITION), "weight_x", "bias_x")
"""Tensors that all groups of a pass share."""

_MAX_PLANS = 64
"""Shapes and modes of calls that are remembered."""

_WRITTEN = {"forward": ("starts", "outputs"), "backward": ("grad_gates",)}
"""Tensors of a group whose values before it do not matter."""

Named = dict[str, Tensor]


class Direct:
    """Run groups of chunks without graphs."""

    def forward(self, part: Transition, tables: Tables, group: Named, save: bool) -> None:
        """Compute :func:`forward_group` in place, for its tensors by name."""
        forward_group(part, tables, save, **group)

    def backward(self, part: Transition, tables: Tables, group: Named) -> None:
        """Compute :func:`backward_group` in place, for its tensors by name."""
        backward_group(part, tables, group.get("grad_outputs"), group.get("grad_memories"), **_shared(group))


class Replays(Direct):
    """Run groups of complete chunks by graphs.

    Args:
        plan: of the shapes of a call.
        graphs: of the device.
    """

    def __init__(self, plan: "_Plan", graphs: Graphs):
        self._plan, self._graphs = plan, graphs
        self._prepared: set[Any] = set()

    def forward(self, part: Transition, tables: Tables, group: Named, save: bool) -> None:
        """Compute :func:`forward_group` in place."""
        given = _inputs(part, tables) | group
        changed = ("starts", "hidden", "outputs", "inputs", *(("gates",) if save else ()))

        def run(part: Transition, tables: Tables, group: Named) -> None:
            Direct().forward(part, tables, group, save)

        if not self._run("forward", part, given, changed, run):
            super().forward(part, tables, group, save)

    def backward(self, part: Transition, tables: Tables, group: Named) -> None:
        """Compute :func:`backward_group` in place."""
        given = _inputs(part, tables) | group
        changed = ("carry", "grad_memory", "grad_inputs", "grad_gates")
        if not self._run("backward", part, given, changed, Direct().backward):
            super().backward(part, tables, group)

    def _run(self, kind: str, part: Transition, given: Named, changed: tuple[str, ...], function: Callable[..., None]) -> bool:
        """Run a graph and copy what it changed; return False if there is none."""
        net = part.net
        if net.steps != net.chunks * net.chunk:
            return False
        key = kind, changed, tuple((name, value.shape, value.dtype) for name, value in given.items())
        graph = self._plan.captured.get(key)
        if graph is None or graph.captured is None:
            self._plan.constants.pop(key, None)  # of a graph that was dropped
            graph = self._capture(key, part, given, changed, function)
        if graph is None:
            return False
        if key not in self._prepared:  # weights do not change within a pass
            self._prepared.add(key)
            for name, place in self._plan.constants[key].items():
                place.copy_(given[name])
        results = graph([given[name] for name in _variable(kind, given)])
        for name, result in zip(changed, results, strict=True):
            given[name].copy_(result)
        return True

    def _capture(
        self, key: Any, part: Transition, given: Named, changed: tuple[str, ...], function: Callable[..., None]
    ) -> Graph | None:
        """Capture a function of a group; return None if its graph does not fit in memory."""
        size = 2 * nbytes(given.values())
        if not self._graphs.admit(size):
            return None
        with torch.inference_mode(False), torch.no_grad():
            named = {name: torch.empty_like(value, memory_format=torch.contiguous_format) for name, value in given.items()}
            for name, place in named.items():
                place.copy_(given[name])
            places = [named[name] for name in _variable(key[0], named)]
            local = _rebuilt(part, named)

            def run() -> list[Tensor | None]:
                function(*local)
                return [named[name] for name in changed]

            graph = Graph(self._graphs, places, size)
            graph.captured = self._graphs.capture(run, list(named.values()))
        self._plan.captured[key] = graph
        self._plan.constants[key] = {name: place for name, place in named.items() if name in _CONSTANT}
        self._prepared.discard(key)
        self._graphs.add(graph)
        return graph


class _Plan:
    """Graphs for the shapes of a call.

    Attributes:
        calls: number of calls with these shapes.
        captured: graphs by kind, what they change, and shapes and types of their tensors.
        constants: the places of each graph for tensors that all groups of a pass share.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.captured: dict[Any, Graph] = {}
        self.constants: dict[Any, Named] = {}


_plans: OrderedDict[Any, _Plan] = OrderedDict()
_lock = Lock()


@contextmanager
def runner_for(transition: Transition, like: Tensor, backward: bool = False) -> Iterator[Direct]:
    """Return what runs the groups of a call, forward or backward.

    Args:
        transition: of the sequence.
        like: tensor of the type and on the device of the states.
        backward: it is a backward pass.
    """
    graphs = graphs_of(like) if transition.capturable else None
    plan = None if graphs is None else _plan(transition, like, backward)
    if graphs is None or plan is None:
        yield Direct()
    else:
        with graphs.in_turn():
            yield Replays(plan, graphs)


def graphs_of(tensor: Tensor) -> Graphs | None:
    """Return the graphs of a tensor's device; None on the CPU and within a capture of the caller's."""
    if not tensor.is_cuda or torch.cuda.is_current_stream_capturing():
        return None
    return device_graphs(tensor.device)


def _plan(transition: Transition, like: Tensor, backward: bool) -> _Plan | None:
    """Return the plan for the shapes of a call; None at the first call."""
    net = replace(transition.net, steps=0, lengths=None, weight_uh=None, weight_um=None, evolution=None)
    shapes = tuple((name, value.shape[1:], value.dtype) for name, value in transition.tensors().items())
    modes = torch.are_deterministic_algorithms_enabled(), torch.backends.cuda.matmul.fp32_precision
    key = type(transition), net, shapes, transition.half, like.dtype, like.device, modes, backward
    with _lock:
        plan = _plans.setdefault(key, _Plan())
        _plans.move_to_end(key)
        if len(_plans) > _MAX_PLANS:
            _plans.popitem(last=False)
        plan.calls += 1
    return plan if plan.calls > 1 else None


def _variable(kind: str, names: Collection[str]) -> list[str]:
    """Return the names of the tensors whose values before a group matter and may differ from group to group."""
    written = (*_WRITTEN[kind], *(("gates",) if "x" in names else ()))
    return [name for name in names if name not in _CONSTANT and name not in written]


def _inputs(part: Transition, tables: Tables) -> Named:
    """Return the tensors of a group's transition and tables by name."""
    found = {"table_impulses": tables.impulses, "table_gates": tables.gates, "table_feedback": tables.feedback}
    named = {f"part_{name}": value for name, value in part.tensors().items()}
    return named | {name: value for name, value in found.items() if value is not None}


def _rebuilt(part: Transition, named: Named) -> tuple[Transition, Tables, Named]:
    """Return a transition, tables and other tensors of a group from all its tensors by name."""
    own = {name.removeprefix("part_"): value for name, value in named.items() if name.startswith("part_")}
    tables = Tables(named["table_impulses"], named.get("table_gates"), named.get("table_feedback"))
    others = {name: value for name, value in named.items() if not name.startswith(("part_", "table_"))}
    return part.with_tensors(own), tables, others


def _shared(group: Named) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name not in ("grad_outputs", "grad_memories")}
