"""A model that reads long sequences in parts, between which its state is carried."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from seqmem.data.batch import Batch
from seqmem.models.base import SequenceModel


class InParts(SequenceModel):
    """The same outputs as a model's, computed part by part of the time, with the memory of a part.

    The outputs at every step, where the data set asks for them, are in memory whole. A batch with shorter
    sequences is read whole.

    Args:
        model: that carries a state; its parameters are shared.
        steps: of a part; the first one may have fewer, and all have at least as many as have an output at the end.
    """

    def __init__(self, model: SequenceModel, steps: int):
        super().__init__()
        self.model, self.spec = model, model.spec
        self._fewest = self.spec.output_steps or 1
        self._steps = max(steps, self._fewest)

    def forward(self, batch: Batch) -> Tensor:
        """Compute the outputs at the steps that the spec defines, or at the places of the batch."""
        if batch.lengths is not None:
            if bool((batch.lengths < batch.inputs.shape[1]).any()):
                return self.model(batch)
            batch = replace(batch, lengths=None)
        outputs: list[Tensor] = []
        state: Any = None
        for begin, end in pairwise(bounds(batch.inputs.shape[1], self._steps, self._fewest)):
            times = None if batch.times is None else batch.times[:, begin:end]
            part = replace(batch, inputs=batch.inputs[:, begin:end], times=times)
            if batch.places is not None:
                inside, order = _within(batch.places, begin, end)
                part = replace(part, places=(batch.places.gather(1, order) - begin).clamp(0, end - begin - 1))
                found, state = self.model.carry(part, state)
                outputs = outputs or [found.new_zeros(*batch.places.shape, found.shape[-1])]
                _put(outputs[0], found, inside, order)
            else:
                found, state = self.model.carry(part, state)
                outputs = [*outputs, found] if self.spec.output_steps is None else [found]
        return torch.cat(outputs, 1) if outputs[1:] else outputs[0]


def _within(places: Tensor, begin: int, end: int) -> tuple[Tensor, Tensor]:
    """Return which places (B, K) lie in a part, and numbers (B, k) of these, k of the row with most, and of some others."""
    inside = (places >= begin) & (places < end)
    order = inside.byte().argsort(dim=1, descending=True, stable=True)[:, : int(inside.sum(1).max())]
    return inside, order


def _put(outputs: Tensor, found: Tensor, inside: Tensor, order: Tensor) -> None:
    """Write outputs (B, k, H) to their numbers in (B, K, H); those of places that are not inside are left out."""
    numbers = order[..., None].expand(-1, -1, outputs.shape[-1])
    is_own = inside.gather(1, order)[..., None]
    outputs.scatter_(1, numbers, torch.where(is_own, found, outputs.gather(1, numbers)))


def bounds(length: int, steps: int, fewest: int = 1) -> list[int]:
    """Return the bounds of consecutive parts of ``steps`` steps; the first part has the remainder.

    A first part of fewer than ``fewest`` steps is joined to the next one.

    >>> bounds(10, 4)
    [0, 2, 6, 10]
    >>> bounds(10, 4, 3)
    [0, 6, 10]
    >>> bounds(3, 4)
    [0, 3]
    """
    first = length % steps
    return [0, *range(first if first >= fewest else first + steps, length, steps), length]
