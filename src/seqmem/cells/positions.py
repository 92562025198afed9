"""Positions of rows in their sequences, known on the host without waiting for the device.

A state holds the number of past steps of each row as a tensor. The cells remember the number that all rows of such a tensor
have, also for its slices and detached copies. A tensor that no cell returned is read once.

A change in place forgets the number. Tensors made in inference mode do not count their changes: on a GPU they are compared with
the number there, and a difference stops the process; elsewhere they are read again.
"""

from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from seqmem.ops.lengths import any_wrong
from seqmem.ops.transforms import values

_CHANGED = (
    "state.step: got values that were changed in place in inference mode, expected those that the cell returned; "
    "change a copy, for example by torch.where"
)

_known: WeakKeyDictionary[torch.UntypedStorage, tuple[int | None, int | None]] = WeakKeyDictionary()
"""Storage of a tensor of past steps -> the version of its values, and the number that all rows have or None."""


def kept_on_host(tensor: Tensor) -> bool:
    """Return whether positions of states on a tensor's device are remembered: reading them there would wait."""
    return tensor.is_cuda


def remember(past_steps: Tensor, position: int | None) -> None:
    """Record the number of past steps that all rows (B,) have, or None if their numbers differ."""
    past_steps = values(past_steps)
    if past_steps.numel() > 0:
        _known[past_steps.untyped_storage()] = _version(past_steps), position


def position_of(past_steps: Tensor) -> int | None:
    """Return the number of past steps if all rows (B,) have the same, else None."""
    past_steps = values(past_steps)
    if past_steps.numel() == 0:
        return 0
    version, position = _known.get(past_steps.untyped_storage(), (-1, None))
    if version == _version(past_steps) and not _may_differ(past_steps, position):
        return position
    first, last = (int(value) for value in past_steps.aminmax())
    position = first if first == last else None
    if past_steps.untyped_storage().nbytes() == past_steps.nbytes:  # else the tensor may be a part of one with other rows
        remember(past_steps, position)
    return position


def _may_differ(past_steps: Tensor, position: int | None) -> bool:
    """Return whether past steps may differ from their known position after a change that was not counted."""
    counts = _version(past_steps) is not None
    return not counts and position is not None and any_wrong(past_steps != position, _CHANGED)


def _version(tensor: Tensor) -> int | None:
    """Return the number of changes in place; None for tensors that do not count them."""
    return None if tensor.is_inference() else tensor._version
