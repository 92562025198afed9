"""The time loop of a cell on a GPU, captured once for each shape and then replayed as one CUDA graph.

A step is some ten small kernels, whose launches take longer than the kernels: a graph launches those of all steps at once.
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

# Each holds all numbers of its sequence on the GPU.
_MOST_GRAPHS = 8

Loop = Callable[..., tuple[Tensor, ...]]


class CapturedLoop:
    """Runs a cell's time loop from a graph where it can.

    A graph has its numbers in fixed places: replaying it before the gradient of the last replay was taken would spoil that.
    Then, and for whatever cannot be captured (a warning says so once), the loop runs as it is.

    Args:
        cell: the cell; its parameters and buffers are read anew at every replay.
        capture: makes a graphed function of a function and example arguments; torch.cuda.make_graphed_callables.

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

    def __call__(
        self, inputs: Tensor, state: tuple[Tensor, ...], lengths: Tensor | None, fresh: bool
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """Outputs (B, T, H) and the parts of the state after the last step, as the cell's own loop gives them."""
        cell: Any = self._cell()
        # Buffers too: a cell that was moved has others, and a graph knows addresses alone.
        names, weights = zip(*cell.named_parameters(), *cell.named_buffers(), strict=True)
        arguments = (inputs, *state, *(() if lengths is None else (lengths,)), *weights)
        graph = None if self._is_pending() else self._graph(cell, names, arguments, state, lengths is not None, fresh)
        self.used = graph is not None
        if graph is None:
            return cell.stepwise_forward(inputs, state, lengths, fresh)
        self._replays += 1
        outputs, *parts = (value.clone() for value in graph(*arguments))
        if any(value.requires_grad for value in (outputs, *parts)):
            outputs, *parts = _Taken.apply(self, self._replays, outputs, *parts)
            node = next(value.grad_fn for value in (outputs, *parts) if value.grad_fn is not None)
            self._pending = weakref.ref(node)
        return outputs, parts

    def taken(self, replay: int) -> None:
        """The gradient of a replay has been asked for.

        Raises:
            RuntimeError: another replay has overwritten its numbers.
        """
        if replay != self._replays:
            raise RuntimeError("the sequence was run again since; its gradient can be asked for twice only before that")
        self._pending = None

    def _is_pending(self) -> bool:
        return self._pending is not None and self._pending() is not None

    def _graph(
        self, cell: nn.Module, names: Sequence[str], arguments: Sequence[Tensor], state: Any, has_lengths: bool, fresh: bool
    ) -> Loop | None:
        device = arguments[0].device.type
        half = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        gradients = torch.is_grad_enabled()
        key = (*((a.shape, a.dtype, a.device, a.requires_grad) for a in arguments), has_lengths, fresh, half, gradients)
        if key in self._graphs:
            self._graphs.move_to_end(key)
            return self._graphs[key]
        if len(self._graphs) == _MOST_GRAPHS:
            self._graphs.popitem(last=False)

        def loop(inputs: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
            count = len(state)
            before = type(state)(*rest[:count]) if hasattr(state, "_make") else rest[:count]
            lengths, weights = (rest[count], rest[count + 1 :]) if has_lengths else (None, rest[count:])
            given = dict(zip((f"cell.{name}" for name in names), weights, strict=True))
            # A cached cast of a weight would be a number from outside the graph.
            with torch.autocast(device, half, cache_enabled=False) if half else nullcontext():
                outputs, after = functional_call(_Stepwise(cell), given, (inputs, before, lengths, fresh))
            return outputs, *after

        examples = tuple(a.detach().clone().requires_grad_(a.requires_grad) for a in arguments)
        try:
            with torch.autocast(device, enabled=False):
                self._graphs[key] = self._capture(loop, examples)  # type: ignore[assignment]
        except RuntimeError as error:
            self._graphs[key] = None
            warnings.warn(f"the time loop was not captured in a CUDA graph and runs as it is: {error}", stacklevel=5)
        return self._graphs[key]


class _Stepwise(nn.Module):
    def __init__(self, cell: Any):
        super().__init__()
        self.cell = cell

    def forward(self, *arguments: Any) -> Any:
        return self.cell.stepwise_forward(*arguments)


class _Taken(torch.autograd.Function):
    """The identity, which tells a loop when the gradient arrives."""

    @staticmethod
    def forward(ctx: Any, loop: CapturedLoop, replay: int, *values: Tensor) -> tuple[Tensor, ...]:
        ctx.loop, ctx.replay = loop, replay
        ctx.mark_non_differentiable(*(value for value in values if not value.is_floating_point()))
        return tuple(value.view_as(value) for value in values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        ctx.loop.taken(ctx.replay)
        return None, None, *grads
