"""States of a model between consecutive batches of a split."""

from typing import Any

import torch
from lightning_utilities import apply_to_collection
from torch import Tensor


class CarriedStates:
    """The state after the last batch of each split, without gradient (truncated backpropagation through time)."""

    def __init__(self) -> None:
        self._states: dict[str, Any] = {}

    def reset(self, split: str) -> None:
        """Begin a split without a state."""
        self._states.pop(split, None)

    def before(self, split: str, rows: int) -> Any:
        """Return the state before the next batch, None at the beginning; the last batch of a split may have fewer rows."""
        return apply_to_collection(self._states.get(split), Tensor, lambda part: part[:rows])

    def after(self, split: str, state: Any) -> None:
        """Keep the state after a batch."""
        self._states[split] = apply_to_collection(state, Tensor, Tensor.detach)

    def plain(self, split: str) -> Any:
        """Return the state with tuples of any kind as tuples: a checkpoint holds no classes of this project."""
        return _plain(self._states.get(split))

    def restore(self, split: str, state: Any, device: torch.device) -> None:
        """Set what :meth:`plain` returned."""
        if state is not None:
            self._states[split] = apply_to_collection(state, Tensor, lambda part: part.to(device))


def _plain(state: Any) -> Any:
    return tuple(_plain(part) for part in state) if isinstance(state, tuple | list) else state
