"""One sequence of an evaluation, kept to be shown."""

import torch
from torch import Tensor

from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.training.evaluation.measure import BatchObserver


class Excerpt(BatchObserver):
    """Keeps the targets of one sequence, and the model's outputs and boundaries at every step.

    Args:
        spec: of the data set.
        sequence: number of the sequence in the split, from 0. Where batches are contiguous: number of the chunk of the first
            row, which is kept with the chunks after it.
        steps: largest number of steps to keep.
    """

    def __init__(self, spec: DataSpec, sequence: int, steps: float):
        self.spec, self.sequence, self.steps = spec, sequence, steps
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []
        self._passed = 0

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return targets (T, ...), outputs (T, K) float32 and boundaries (T, L) float32.

        Raises:
            UserError: the evaluation ended before the sequence.
        """
        if not self._parts:
            unit = "chunks of the first row" if self.spec.contiguous else "sequences"
            raise UserError(f"sequence: got {self.sequence}, expected less than {self._passed}, the {unit} that were read")
        targets, outputs, boundaries = (torch.cat(part) for part in zip(*self._parts, strict=True))
        return targets, outputs, boundaries

    def observe(self, batch: Batch, results: dict[str, Tensor]) -> None:
        """Keep the sequence's part of the batch."""
        kept = sum(len(targets) for targets, _, _ in self._parts)
        row = 0 if self.spec.contiguous else self.sequence - self._passed
        self._passed += 1 if self.spec.contiguous else len(batch)
        if not 0 <= row < len(batch) or self._passed <= self.sequence or kept >= self.steps:
            return
        steps = int(min(self.steps - kept, int(batch.on_host.row_lengths[row])))
        parts = (batch.targets_or_nan, results["outputs"].float(), results["boundaries"].float())
        targets, outputs, boundaries = (part[row, :steps].detach().cpu() for part in parts)
        self._parts.append((targets, outputs, boundaries))
