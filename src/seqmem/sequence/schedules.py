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
    shared: list[Tensor] = []
    stepwise: list[Tensor] = []
    same = all(item is items[0] for item in items)
    columns = ([leaf] for leaf in _leaves(items[0])) if same else map(list, zip(*map(_leaves, items), strict=True))
    places: list[Any] = []
    for column in columns:
        first = column[0]
        if all(leaf is first for leaf in column):
            places.append(_Place(len(shared)) if isinstance(first, Tensor) else first)
            shared += [first] if isinstance(first, Tensor) else []
        elif all(isinstance(leaf, Tensor) for leaf in column):
            places.append(_Place(-1 - len(stepwise)))
            stepwise.append(torch.stack(column))
        elif all(leaf == first for leaf in column):
            places.append(first)
        else:
            return None
    return Schedule(shared, stepwise, _rebuilt(items[0], iter(places)))


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
    make = getattr(type(like), "_make", type(like))
    return make([_rebuilt(inner, leaves) for inner in like])
