"""The module that is exported: a model that takes tensors instead of a batch."""

from typing import Any

import torch
from torch import Tensor, nn

from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.models import SequenceModel


class Program(nn.Module):
    """A model that takes tensors instead of a batch: inputs, then lengths and times if it takes them.

    Args:
        model: the trained model.
        spec: of its data set.
        lengths: whether the program takes the valid steps of each row.
    """

    def __init__(self, model: SequenceModel, spec: DataSpec, lengths: bool):
        super().__init__()
        self.model, self.spec = model, spec
        self.dtype = next((value.dtype for value in model.parameters() if value.is_floating_point()), torch.float32)
        self.names = ["inputs", *(["lengths"] if lengths else []), *(["times"] if spec.times else [])]

    def forward(self, *tensors: Tensor) -> Tensor:
        """The model's outputs."""
        given: dict[str, Any] = dict(zip(self.names, tensors, strict=True))
        inputs = given["inputs"]
        # Models that reconstruct a sequence take its length from the targets.
        return self.model(Batch(targets=inputs.new_empty(*inputs.shape[:2], self.spec.output_size), **given))

    def example(self, rows: int, steps: int) -> tuple[Tensor, ...]:
        """Random inputs of ``rows`` rows (B) and ``steps`` steps (T)."""
        if self.spec.tokens:
            inputs = torch.randint(self.spec.input_size, (rows, steps))
        else:
            inputs = torch.randn(rows, steps, self.spec.input_size, dtype=self.dtype)
        tensors = {"inputs": inputs}
        tensors["lengths"] = torch.randint(1, steps + 1, (rows,))
        tensors["times"] = torch.rand(rows, steps, dtype=self.dtype).cumsum(1)
        return tuple(tensors[name] for name in self.names)
