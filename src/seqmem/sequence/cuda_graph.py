"""The time loop of a cell as a CUDA graph: captured once for each shape, then replayed.

A step is about ten small kernels, and launching them takes longer than running them. A graph launches all steps at once.
"""

import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from seqmem.ops.states import mapped, parts, rebuild

# Each graph keeps all intermediate values of its sequence on the GPU.
_MAX_GRAPHS = 8

Loop = Callable[..., tuple[Tensor, ...]]


class CapturedLoop:
    """Run a cell's time loop as a CUDA graph where possible, else eagerly.

    A graph keeps its tensors at fixed addresses, so a replay overwrites what backward of the previous replay needs. While that
    backward is pending the loop runs eagerly. It also does where the capture failed, after a warning.

    Args:
        cell: the cell; its parameters and buffers are looked up at every call.
        capture: returns a graphed function, given a function and example arguments; torch.cuda.make_graphed_callables.

    Attributes:
        used: whether the latest call replayed a graph.
    """

    def __init__(self, cell: Any, capture: Callable[[Loop, tuple[Tensor, ...]], Loop] | None = None):
        self._cell = weakref.ref(cell)  # the cell holds the loop
        self._capture = capture or torch.cuda.make_graphed_callables
        self._graphs: OrderedDict[Any, Loop | None] = OrderedDict()
        self._pending: weakref.ref[Any] | None = None
        self._replays = 0
        self.used = False

    def __call__(self, inputs: Tensor, state: Any, lengths: Tensor | None, fresh: bool) -> tuple[Tensor, Sequence[Tensor]]:
        """Return outputs (B, T, H) and the parts of the state after the last step, as the cell's own loop computes them."""
        cell: Any = self._cell()
        # Moving a cell replaces its buffers, and a graph knows addresses only: all tensors are arguments.
        names, weights = zip(*cell.named_parameters(), *cell.named_buffers(), strict=True)
        arguments = (inputs, *parts(state), *(() if lengths is None else (lengths,)), *weights)
        graph = None if self._is_pending() else self._graph(cell, names, arguments, state, lengths is not None, fresh)
        self.used = graph is not None
        if graph is None:
            outputs, after = cell.stepwise_forward(inputs, state, lengths, fresh)
            return outputs, parts(after)
        self._replays += 1
        results = [value.clone() for value in graph(*arguments)]
        if any(value.requires_grad for value in results):
            results = _WatchedBackward.apply(self, self._replays, *results)
            node = next(value.grad_fn for value in results if value.grad_fn is not None)
            self._pending = weakref.ref(node)
        return results[0], results[1:]

    def on_backward(self, replay: int) -> None:
        """Record that backward of a replay has begun.

        Raises:
            RuntimeError: a later replay has overwritten its intermediate values.
        """
        if replay != self._replays:
            raise RuntimeError(
                "the CUDA graph was replayed since this forward pass; call backward a second time before the next forward pass"
            )
        self._pending = None

    def _is_pending(self) -> bool:
        return self._pending is not None and self._pending() is not None

    def _graph(
        self, cell: nn.Module, names: Sequence[str], arguments: Sequence[Tensor], state: Any, has_lengths: bool, fresh: bool
    ) -> Loop | None:
        """Return the graph for these shapes and modes, captured at the first call; None if the capture failed."""
        device = arguments[0].device.type
        half = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        gradients = torch.is_grad_enabled()
        key = (*((a.shape, a.dtype, a.device, a.requires_grad) for a in arguments), has_lengths, fresh, half, gradients)
        if key in self._graphs:
            self._graphs.move_to_end(key)
            return self._graphs[key]
        if len(self._graphs) == _MAX_GRAPHS:
            self._graphs.popitem(last=False)

        structure = mapped(lambda part: part.new_empty(0), state)  # without keeping the state itself
        count = len(parts(state))

        def loop(inputs: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
            before = rebuild(structure, list(rest[:count]))
            lengths, weights = (rest[count], rest[count + 1 :]) if has_lengths else (None, rest[count:])
            given = dict(zip((f"cell.{name}" for name in names), weights, strict=True))
            # A cached cast of a weight would be a tensor from outside the graph.
            with torch.autocast(device, half, cache_enabled=False) if half else nullcontext():
                outputs, after = functional_call(_Stepwise(cell), given, (inputs, before, lengths, fresh))
            return outputs, *parts(after)

        examples = tuple(a.detach().clone().requires_grad_(a.requires_grad) for a in arguments)
        try:
            with torch.autocast(device, enabled=False):
                self._graphs[key] = self._capture(loop, examples)  # type: ignore[assignment]
        except RuntimeError as error:
            self._graphs[key] = None
            warnings.warn(f"CUDA graph capture failed; running eagerly: {error}", stacklevel=5)
        return self._graphs[key]


class _Stepwise(nn.Module):
    """A cell whose forward is its time loop, for functional_call."""

    def __init__(self, cell: Any):
        super().__init__()
        self.cell = cell

    def forward(self, *arguments: Any) -> Any:
        return self.cell.stepwise_forward(*arguments)


class _WatchedBackward(torch.autograd.Function):
    """The identity, which calls a loop's ``on_backward`` when the gradient arrives."""

    @staticmethod
    def forward(ctx: Any, loop: CapturedLoop, replay: int, *values: Tensor) -> tuple[Tensor, ...]:
        ctx.loop, ctx.replay = loop, replay
        return tuple(value.view_as(value) for value in values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        ctx.loop.on_backward(ctx.replay)
        return None, None, *grads
