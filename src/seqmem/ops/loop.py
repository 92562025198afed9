"""The time loop of a recurrence, the reference for every faster implementation."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import linear

from seqmem.data.masks import masked, valid_steps
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


def hidden_loop(
    step: Callable[[Tensor, Tensor], Tensor],
    inputs: Tensor,
    hidden: Tensor,
    lengths: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Run a recurrence whose output is its only state.

    Args:
        step: maps W x + b (B, P) and h (B, H) to h after the step.
        inputs: x, (B, T, C).
        hidden: h before the first step, (B, H).
        lengths: (B,) valid steps of each row; None if all T are valid.
        weight: W, (P, C).
        bias: b, (P,), or None.

    Returns:
        outputs (B, T, H), zero in the padding, and h after each row's last valid step.
    """
    projected = linear(masked(inputs, lengths).transpose(0, 1), weight, bias)

    def both(item: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        after = step(item, state)
        return after, after

    outputs, after = run_steps(both, projected.unbind(0), hidden, lengths, inputs.shape[1])
    return stacked(outputs, inputs, hidden.shape[1]), after
