"""The items of a recurrence's schedule as tensors: those that all steps share, and those that differ from step to step."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Schedule(NamedTuple):
    """A schedule of T steps.

    Attributes:
        shared: tensors that all steps use.
        stepwise: (T, ...) tensors that differ from step to step.
        form: an item with a number in place of each tensor: k >= 0 for ``shared[k]``, -1 - k for ``stepwise[k]``. Its other
            parts are the same at all steps.
    """

    shared: list[Tensor]
    stepwise: list[Tensor]
    form: Any


class _Place(int):
    """The place of a tensor in a form."""

    def __repr__(self) -> str:
        return f"tensor {int(self)}"


def split_schedule(items: Sequence[Any]) -> Schedule | None:
    """Return a schedule with at least one item as tensors; None if parts that are not tensors differ from step to step.

    Args:
        items: of :meth:`seqmem.cells.Recurrence.schedule`; each None, a value, or a tensor, or tuples and lists of them.
    """
    parts = _Parts()
    form = parts.form_of(items)
    return None if parts.differ else Schedule(parts.shared, parts.stepwise, form)


class _Parts:
    """The tensors that were found in items, and whether other parts differ."""

    def __init__(self) -> None:
        self.shared: list[Tensor] = []
        self.stepwise: list[Tensor] = []
        self.differ = False

    def form_of(self, items: Sequence[Any]) -> Any:
        """Return the form of items of one structure, and collect their tensors."""
        first = items[0]
        same = all(item is first for item in items)
        if not same and any(_structure(item) != _structure(first) for item in items):
            self.differ = True
            return None
        if isinstance(first, tuple | list):
            columns = ([inner] for inner in first) if same else zip(*items, strict=True)
            return _like(first, [self.form_of(column) for column in columns])
        if not isinstance(first, Tensor):
            self.differ = self.differ or not (same or all(item == first for item in items))
            return first
        if same:
            self.shared.append(first)
            return _Place(len(self.shared) - 1)
        self.stepwise.append(torch.stack(list(items)))
        return _Place(-len(self.stepwise))


def item_at(form: Any, shared: Sequence[Tensor], stepwise: Sequence[Tensor], step: int) -> Any:
    """Return the item of one step.

    Args:
        form: of a :class:`Schedule`.
        shared: tensors that all steps use.
        stepwise: tensors (K, ...) of K steps.
        step: the step, below K.
    """

    def value(leaf: Any) -> Any:
        if not isinstance(leaf, _Place):
            return leaf
        return shared[leaf] if leaf >= 0 else stepwise[-1 - leaf][step]

    return _rebuilt(form, map(value, _leaves(form)))


def _leaves(item: Any) -> Iterator[Any]:
    if isinstance(item, tuple | list):
        for inner in item:
            yield from _leaves(inner)
    else:
        yield item


def _rebuilt(like: Any, leaves: Iterator[Any]) -> Any:
    if not isinstance(like, tuple | list):
        return next(leaves)
    return _like(like, [_rebuilt(inner, leaves) for inner in like])


def _structure(item: Any) -> Any:
    """Return what the items of one place have in common in all steps."""
    if isinstance(item, Tensor):
        return item.shape, item.dtype, item.device
    return type(item), len(item) if isinstance(item, tuple | list) else 0


def _like(like: Any, inner: list[Any]) -> Any:
    """Return a tuple, NamedTuple or list of the same type."""
    return getattr(type(like), "_make", type(like))(inner)
