"""The time loop of a recurrence, the reference for every faster implementation."""

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
    """Apply ``step`` to each item; in the padding a row keeps its state and its outputs are zero.

    Args:
        step: maps an item and the state before it to an output (B, ...) and the state after it.
        items: one for each of the T steps.
        state: the state before the first step.
        lengths: (B,) valid steps of each row; None if all T are valid.
        steps: T.

    Returns:
        T outputs, and each row's state after its last valid step.
    """
    return run_masked(step, items, state, None if lengths is None else valid_steps(lengths, steps).T)


def run_masked(
    step: Callable[[Any, State], tuple[Tensor, State]], items: Iterable[Any], state: State, valid: Tensor | None
) -> tuple[list[Tensor], State]:
    """Compute :func:`run_steps` with a mask (T, B) of the valid steps, None if all are."""
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
    """Stack T outputs (B, H) to (B, T, H); if T is 0, ``inputs`` (B, T, C) provide B and the type."""
    return torch.stack(outputs, 1) if outputs else inputs.new_zeros(inputs.shape[0], 0, size)
