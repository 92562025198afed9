"""The module that is exported: a model that takes tensors instead of a batch."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.models import SequenceModel


class Program(nn.Module):
    """A model that takes tensors instead of a batch.

    They are inputs, then lengths and times if it takes them, then its state.

    Attributes:
        names: of the tensors that it takes.
        outputs: names of those that it returns.
        initial: by name, the tensors of the state before the first step, for one row (1, ...); empty without a state. Those
            without numbers are left out.

    Args:
        model: the trained model.
        spec: of its data set.
        lengths: whether the program takes the valid steps of each row.
        state: whether the program takes a state, and returns the one after its last step.
    """

    def __init__(self, model: SequenceModel, spec: DataSpec, lengths: bool, state: bool = False):
        super().__init__()
        self.model, self.spec = model, spec
        self.dtype = next((value.dtype for value in model.parameters() if value.is_floating_point()), torch.float32)
        self._like = model.initial_state(1) if state else None
        tensors = [tensor.detach() for tensor in _leaves(self._like) if _has_numbers(tensor)]
        self.initial = {f"state_{k}": tensor for k, tensor in enumerate(tensors)}
        self.names = ["inputs", *(["lengths"] if lengths else []), *(["times"] if spec.times else []), *self.initial]
        self.outputs = ["outputs", *(f"next_{name}" for name in self.initial)]

    def forward(self, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the model's outputs, and then the tensors of the state if it takes them."""
        given: dict[str, Any] = dict(zip(self.names, tensors, strict=True))
        state = iter([given.pop(name) for name in self.initial])
        inputs = given["inputs"]
        # Models that reconstruct a sequence take its length from the targets.
        batch = Batch(targets=inputs.new_empty(*inputs.shape[:2], self.spec.output_size), **given)
        if not self.initial:
            return self.model(batch)
        outputs, after = self.model.carry(batch, _rebuilt(self._like, state, inputs.shape[0]))
        return outputs, *(tensor for tensor in _leaves(after) if _has_numbers(tensor))

    def example(self, rows: int, steps: int) -> tuple[Tensor, ...]:
        """Return random inputs of ``rows`` rows (B) and ``steps`` steps (T), and the state after as many others."""
        before, tensors = self._random(rows, steps), self._random(rows, steps)
        if self.initial:
            with torch.no_grad():
                start = [tensor.expand(rows, *tensor.shape[1:]) for tensor in self.initial.values()]
                _, *state = self(*(before[name] for name in self.names if name not in self.initial), *start)
            tensors |= dict(zip(self.initial, state, strict=True))
            tensors["times"] = tensors["times"] + before["times"].max()
        return tuple(tensors[name] for name in self.names)

    def _random(self, rows: int, steps: int) -> dict[str, Tensor]:
        if self.spec.tokens:
            inputs = torch.randint(self.spec.input_size, (rows, steps))
        else:
            inputs = torch.randn(rows, steps, self.spec.input_size, dtype=self.dtype)
        lengths = torch.randint(1, steps + 1, (rows,))
        return {"inputs": inputs, "lengths": lengths, "times": torch.rand(rows, steps, dtype=self.dtype).cumsum(1)}


def _leaves(state: Any) -> Iterator[Tensor]:
    """Yield the tensors of tuples and lists of any depth, in order."""
    if isinstance(state, Tensor):
        yield state
    for part in state if isinstance(state, tuple | list) else ():
        yield from _leaves(part)


def _has_numbers(tensor: Tensor) -> bool:
    """Return whether the rows of a tensor (B, ...) are not empty."""
    return math.prod(tensor.shape[1:]) > 0


def _rebuilt(like: Any, tensors: Iterator[Tensor], rows: int) -> Any:
    """Return tuples and lists as ``like`` with the given tensors, and with ``rows`` rows of those that have no numbers."""
    if isinstance(like, Tensor):
        return next(tensors) if _has_numbers(like) else like.new_empty(rows, *like.shape[1:])
    parts = [_rebuilt(part, tensors, rows) for part in like]
    return type(like)(*parts) if hasattr(like, "_fields") else type(like)(parts)
