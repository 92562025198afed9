"""Recurrent states: a tensor, or tuples and lists of states; None holds nothing.

The first dimension of every tensor is the batch. A part may be complex or integer.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


def parts(state: Any) -> list[Tensor]:
    """Return the tensors of a state, in order."""
    if state is None:
        return []
    return [state] if isinstance(state, Tensor) else [part for inner in state for part in parts(inner)]


def rebuild(like: Any, tensors: list[Tensor]) -> Any:
    """Return a state with the structure of ``like`` and other tensors, in the order of :func:`parts`."""
    return _rebuild(like, iter(tensors))


@torch.compiler.disable  # torch 2.11 cannot trace a NamedTuple that is built from the type of another one
def rebuild_eagerly(like: Any, tensors: list[Tensor]) -> Any:
    """Compute :func:`rebuild` outside the graphs of torch.compile."""
    return rebuild(like, tensors)


def mapped(function: Callable[[Tensor], Tensor], state: Any) -> Any:
    """Return the state with a function applied to each tensor."""
    return rebuild(state, [function(part) for part in parts(state)])


def kept_types(after: Any, before: Any) -> Any:
    """Return a state in the types of the state before it, which autocast may have changed."""
    pairs = list(zip(parts(after), parts(before), strict=True))
    if all(new.dtype == old.dtype for new, old in pairs):
        return after
    return rebuild_eagerly(after, [new.to(old.dtype) for new, old in pairs])


def select(valid: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Return the rows of ``new`` where ``valid`` (B,) holds, else those of ``old``."""
    return torch.where(valid.view(-1, *[1] * (new.dim() - 1)), new, old)


def _rebuild(like: Any, tensors: Iterator[Tensor]) -> Any:
    if like is None:
        return None
    if isinstance(like, Tensor):
        return next(tensors)
    inner = [_rebuild(part, tensors) for part in like]
    make = getattr(type(like), "_make", type(like))  # the constructor of a NamedTuple takes its parts one by one
    return make(inner)
