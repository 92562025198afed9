"""The time loop of a recurrence: the reference of every faster implementation."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor

from seqmem.data.masks import valid_steps
from seqmem.ops.states import parts, rebuild, select

State = TypeVar("State")


def run_steps(
    step: Callable[[Any, State], tuple[Tensor, State]],
    items: Iterable[Any],
    state: State,
    lengths: Tensor | None,
    steps: int,
) -> tuple[list[Tensor], State]:
    """Apply ``step`` to each item; padding leaves the state of a row as it is and outputs zero.

    Args:
        step: an item and the state before it -> output (B, ...) and the state after it.
        items: T of them.
        state: before the first step.
        lengths: (B,) valid steps of each row; None if all T are valid.
        steps: T.

    Returns:
        T outputs, and each row's state after its last valid step.
    """
    valid = None if lengths is None else valid_steps(lengths, steps).T
    outputs = []
    for t, item in enumerate(items):
        output, after = step(item, state)
        if valid is not None:
            output = select(valid[t], output, torch.zeros_like(output))
            kept = zip(parts(after), parts(state), strict=True)
            after = rebuild(after, [select(valid[t], new, old) for new, old in kept])
        state = after
        outputs.append(output)
    return outputs, state


def stacked(outputs: list[Tensor], inputs: Tensor, size: int) -> Tensor:
    """Return T outputs (B, H) as (B, T, H), also where T is 0; ``inputs`` (B, T, C) give B and the type."""
    return torch.stack(outputs, 1) if outputs else inputs.new_zeros(inputs.shape[0], 0, size)
