"""States of a model between consecutive batches of a split."""

from typing import Any

import torch
from lightning_utilities import apply_to_collection
from torch import Tensor

from seqmem.data.batch import Batch
from seqmem.models import SequenceModel
from seqmem.ops.states import parts, rebuild, select


class CarriedStates:
    """The state after the last batch of each split, without gradient (truncated backpropagation through time)."""

    def __init__(self) -> None:
        self._states: dict[str, Any] = {}

    def reset(self, split: str) -> None:
        """Begin a split without a state."""
        self._states.pop(split, None)

    def before(self, split: str, batch: Batch, model: SequenceModel) -> Any:
        """Return the state before a batch; None at the beginning of a pass over a split.

        The last batch of a split may have fewer rows. A row that :attr:`Batch.restarts` begins with the initial state.
        """
        state = apply_to_collection(self._states.get(split), Tensor, lambda part: part[: len(batch)])
        if state is None or batch.restarts is None:
            return state
        restarts = batch.restarts
        initial = parts(model.initial_state(len(batch)))
        return rebuild(state, [select(restarts, new.to(old), old) for new, old in zip(initial, parts(state), strict=True)])

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
