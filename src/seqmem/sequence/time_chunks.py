"""The time loop of a recurrence in chunks of steps, each a function of tensors alone.

Forward keeps the states between chunks. Backward computes a chunk again, from the last to the first, and then its gradients. A
chunk thus needs nothing from the chunks before it but the state, so that a CUDA graph of one chunk serves sequences of every
length, with the memory of one chunk.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain, islice
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from seqmem.ops.loop import run_masked
from seqmem.ops.states import mapped, parts, rebuild
from seqmem.sequence.schedules import item_at

SIZES = (32, 8, 1)
"""Steps in a chunk: a sequence is cut into chunks of the first size, the rest into those of the second, and so on."""


class Tensors(NamedTuple):
    """The tensors of a time loop of T steps.

    Attributes:
        steps: (T, B, ...) for each step: the projected inputs, the mask of valid steps unless all are, and what the schedule
            has for each step.
        state: the parts of the state before the first step.
        constants: what all steps share: the schedule's tensors, and the cell's parameters and buffers.
    """

    steps: list[Tensor]
    state: list[Tensor]
    constants: list[Tensor]

    @property
    def counts(self) -> list[int]:
        """Number of tensors in each group."""
        return [len(group) for group in self]

    def needs(self) -> "Needs":
        """Return which tensors need a gradient: all parts of the state that can have one, since chunks follow each other."""
        steps, constants = (tuple(tensor.requires_grad for tensor in group) for group in (self.steps, self.constants))
        return Needs(steps, tuple(map(differentiable, self.state)), constants)


class Needs(NamedTuple):
    """Whether each of :class:`Tensors` requires a gradient."""

    steps: tuple[bool, ...]
    state: tuple[bool, ...]
    constants: tuple[bool, ...]


class Chunk:
    """The steps of a cell as a function of :class:`Tensors`; the number of steps follows from these.

    Args:
        cell: the recurrence.
        state: a state of the cell, for its structure.
        form: of the schedule, see :class:`seqmem.sequence.schedules.Schedule`.
        masked: the second tensor of each step is the mask of valid steps.
        half: type of autocast, None without.
        tensors: those of the whole sequence.

    Attributes:
        needs: which gradients backward computes.
        trains: whether backward may follow.
    """

    def __init__(self, cell: Any, state: Any, form: Any, masked: bool, half: torch.dtype | None, tensors: Tensors):
        self.needs = tensors.needs()
        self.trains = torch.is_grad_enabled() and any(value.requires_grad for value in chain(*tensors))
        self._loop, self._half = _Loop(cell, mapped(lambda part: part.new_empty(0), state), form, masked), half
        self._names = [name for name, _ in weights_of(self._loop)]

    def forward(self, tensors: Tensors) -> list[Tensor]:
        """Return the outputs (K, B, H) of K steps, and the parts of the state after them."""
        count = len(tensors.constants) - len(self._names)
        weights = dict(zip(self._names, tensors.constants[count:], strict=True))
        with self._autocast(tensors.steps[0].device):
            return functional_call(self._loop, weights, (tensors.steps, tensors.state, tensors.constants[:count]))

    def backward(self, tensors: Tensors, grads: Sequence[Tensor]) -> list[Tensor | None]:
        """Compute the steps again, and their gradients.

        Args:
            tensors: as for :meth:`forward`.
            grads: the gradients of the results of :meth:`forward` that are differentiable.

        Returns:
            The gradient of each tensor, None where none is needed or the tensor has no influence.
        """
        leaves = [value.detach() for value in chain(*tensors)]
        asked = [leaf for leaf, flag in zip(leaves, chain(*self.needs), strict=True) if flag]
        for leaf in asked:
            leaf.requires_grad_()
        with torch.enable_grad():
            results = self.forward(Tensors(*split(leaves, tensors.counts)))
        given = zip([result for result in results if differentiable(result)], grads, strict=True)
        pairs = [(result, grad) for result, grad in given if result.requires_grad]
        if not pairs:
            return [None] * len(leaves)
        values, of_values = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(values, asked, of_values, allow_unused=True))
        return [next(found) if leaf.requires_grad else None for leaf in leaves]

    def _autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context of autocast, without the cache: a graph must not use casts from outside it, nor leave any."""
        if not torch.amp.is_autocast_available(device.type):
            return nullcontext()
        half = self._half or torch.get_autocast_dtype(device.type)
        return torch.autocast(device.type, half, enabled=self._half is not None, cache_enabled=False)


class Runner(Protocol):
    """What computes the chunks of a sequence. Results are valid until the next call."""

    def begin(self, chunk: Chunk, constants: list[Tensor]) -> AbstractContextManager[object]:
        """Return the context of a pass over a sequence, forward or backward."""

    def forward(self, steps: list[Tensor], state: list[Tensor]) -> list[Tensor]:
        """Compute :meth:`Chunk.forward`."""

    def backward(self, steps: list[Tensor], state: list[Tensor], grads: list[Tensor]) -> list[Tensor | None]:
        """Compute :meth:`Chunk.backward`."""


class Direct:
    """Compute the chunks of one sequence as they are."""

    def begin(self, chunk: Chunk, constants: list[Tensor]) -> AbstractContextManager[object]:
        """Return the context of a pass over a sequence, forward or backward."""
        self._chunk, self._constants = chunk, constants
        return nullcontext()

    def forward(self, steps: list[Tensor], state: list[Tensor]) -> list[Tensor]:
        """Compute :meth:`Chunk.forward`."""
        return self._chunk.forward(Tensors(steps, state, self._constants))

    def backward(self, steps: list[Tensor], state: list[Tensor], grads: list[Tensor]) -> list[Tensor | None]:
        """Compute :meth:`Chunk.backward`."""
        return self._chunk.backward(Tensors(steps, state, self._constants), grads)


def run_chunks(runner: Runner, chunk: Chunk, tensors: Tensors, sizes: Sequence[int] = SIZES) -> list[Tensor]:
    """Compute a sequence in chunks, with a gradient where one is required.

    Args:
        runner: computes each chunk.
        chunk: the function.
        tensors: of T > 0 steps.
        sizes: possible numbers of steps in a chunk, the last of which is 1.

    Returns:
        The outputs (T, B, H), and the parts of the state after the last step; differentiable once.
    """
    if chunk.trains:
        return list(_Sequence.apply(runner, chunk, sizes, tensors.counts, *chain(*tensors)))
    return _forward(runner, chunk, tensors, sizes)[0]


def weights_of(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Return names and values of a module's parameters and buffers."""
    return [*module.named_parameters(), *module.named_buffers()]


def split(values: Sequence[Any], sizes: Sequence[int]) -> list[list[Any]]:
    """Cut a list into lists of these sizes."""
    rest = iter(values)
    return [list(islice(rest, size)) for size in sizes]


def cuts(steps: int, sizes: Sequence[int]) -> Iterator[slice]:
    """Yield the chunks of a sequence of T steps in order."""
    start = 0
    for size in sizes:
        while steps - start >= size:
            yield slice(start, start + size)
            start += size


def differentiable(value: Tensor) -> bool:
    """Return whether a tensor of this type can have a gradient."""
    return value.is_floating_point() or value.is_complex()


@torch.no_grad()
def _forward(runner: Runner, chunk: Chunk, tensors: Tensors, sizes: Sequence[int]) -> tuple[list[Tensor], list[list[Tensor]]]:
    """Return the results, and the state before each chunk."""
    steps, state, outputs, borders = len(tensors.steps[0]), tensors.state, tensors.steps[0], []
    with runner.begin(chunk, tensors.constants):
        for cut in cuts(steps, sizes):
            borders.append(state)
            found, *after = runner.forward([value[cut] for value in tensors.steps], state)
            if cut.start == 0:
                outputs = found.new_empty(steps, *found.shape[1:])
            outputs[cut] = found
            state = [part.clone() for part in after]
    return [outputs, *state], borders


class _Sequence(torch.autograd.Function):
    """The whole sequence: its backward runs the chunks again, from the last to the first."""

    @staticmethod
    def forward(
        ctx: Any, runner: Runner, chunk: Chunk, sizes: Sequence[int], counts: list[int], *flat: Tensor
    ) -> tuple[Tensor, ...]:
        results, borders = _forward(runner, chunk, Tensors(*split(flat, counts)), sizes)
        ctx.given = runner, chunk, sizes, counts
        ctx.save_for_backward(*flat, *(part for border in borders[1:] for part in border))
        ctx.mark_non_differentiable(*(result for result in results if not differentiable(result)))
        return tuple(results)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        runner, chunk, sizes, counts = ctx.given
        saved = list(ctx.saved_tensors)  # read once: activation checkpointing unpacks each only once
        flat, later = split(saved, [sum(counts), len(saved)])
        tensors = Tensors(*split(flat, counts))
        pieces = list(cuts(len(tensors.steps[0]), sizes))
        borders = [tensors.state, *split(later, [counts[1]] * (len(pieces) - 1))]
        found = _backward(runner, chunk, tensors, list(zip(pieces, borders, strict=True)), grads)
        return None, None, None, None, *found


def _backward(
    runner: Runner, chunk: Chunk, tensors: Tensors, pieces: list[tuple[slice, list[Tensor]]], grads: Sequence[Tensor]
) -> list[Tensor | None]:
    """Return the gradient of each tensor.

    Args:
        runner: computes each chunk.
        chunk: the function.
        tensors: those of forward.
        pieces: the chunks in order, and the state before each.
        grads: of the results of forward.
    """
    d_outputs, *d_after = grads
    d_state = [grad for grad, part in zip(d_after, tensors.state, strict=True) if differentiable(part)]
    d_steps: list[Tensor | None] = [None] * len(tensors.steps)
    d_constants: list[Tensor | None] = [None] * len(tensors.constants)
    with runner.begin(chunk, tensors.constants):
        for cut, before in reversed(pieces):
            found = runner.backward([value[cut] for value in tensors.steps], before, [d_outputs[cut], *d_state])
            of_steps, of_state, of_constants = split(found, tensors.counts)
            for place, value in enumerate(of_steps):
                if value is not None:
                    whole = d_steps[place]
                    d_steps[place] = whole = torch.zeros_like(tensors.steps[place]) if whole is None else whole
                    whole[cut] = value
            pairs = zip(of_state, before, strict=True)
            d_state = [
                torch.zeros_like(part) if value is None else value.clone() for value, part in pairs if differentiable(part)
            ]
            _accumulate(d_constants, of_constants)
    known = iter(d_state)
    return [*d_steps, *(next(known) if differentiable(part) else None for part in tensors.state), *d_constants]


def _accumulate(totals: list[Tensor | None], values: list[Tensor | None]) -> None:
    """Add the gradients of a chunk in place, in as few kernels as possible."""
    pairs = [(total, value) for total, value in zip(totals, values, strict=True) if total is not None and value is not None]
    if pairs:
        torch._foreach_add_([total for total, _ in pairs], [value for _, value in pairs])
    for place, value in enumerate(values):
        if totals[place] is None and value is not None:
            totals[place] = value.clone()


class _Loop(nn.Module):
    """The steps of a chunk as a module, for functional_call."""

    def __init__(self, cell: Any, structure: Any, form: Any, masked: bool):
        super().__init__()
        self.cell, self._structure, self._form, self._masked = cell, structure, form, masked

    def forward(self, steps: list[Tensor], state: list[Tensor], shared: list[Tensor]) -> list[Tensor]:
        projected, *stepwise = steps
        valid = stepwise.pop(0) if self._masked else None
        items = [(projected[t], item_at(self._form, shared, stepwise, t)) for t in range(len(projected))]

        def step(item: Any, before: Any) -> tuple[Tensor, Any]:
            return self.cell.advance_in_type(item[0], before, item[1])

        outputs, after = run_masked(step, items, rebuild(self._structure, state), valid)
        return [torch.stack(outputs), *parts(after)]
