"""One sequence of an evaluation, kept to be looked at."""

import torch
from torch import Tensor

from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.training.evaluation.evaluation import Listener


class Excerpt(Listener):
    """Keeps a sequence's targets and what the model made of it: its outputs at every step and its boundaries.

    Args:
        spec: of the data set.
        sequence: which one of the split, from 0. Where batches are contiguous: which chunk of the first row, whose next chunks
            follow.
        steps: how many to keep at most.
    """

    def __init__(self, spec: DataSpec, sequence: int, steps: float):
        self.spec, self.sequence, self.steps = spec, sequence, steps
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []
        self._passed = 0

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Targets (T, ...), outputs (T, K) float32 and boundaries (T, L) float32.

        Raises:
            UserError: the evaluation ended before the sequence.
        """
        if not self._parts:
            what = "chunks of the first row" if self.spec.contiguous else "sequences"
            raise UserError(f"sequence: got {self.sequence}, expected less than {self._passed}, the {what} that were read")
        targets, outputs, boundaries = (torch.cat(part) for part in zip(*self._parts, strict=True))
        return targets, outputs, boundaries

    def hear(self, batch: Batch, made: dict[str, Tensor]) -> None:
        """Keep what is wanted of the batch."""
        kept = sum(len(targets) for targets, _, _ in self._parts)
        row = 0 if self.spec.contiguous else self.sequence - self._passed
        self._passed += 1 if self.spec.contiguous else len(batch)
        if not 0 <= row < len(batch) or self._passed <= self.sequence or kept >= self.steps:
            return
        steps = int(min(self.steps - kept, batch.inputs.shape[1] if batch.lengths is None else batch.lengths[row]))
        parts = (batch.targets, made["outputs"].float(), made["boundaries"].float())
        targets, outputs, boundaries = (part[row, :steps].detach().cpu() for part in parts)
        self._parts.append((targets, outputs, boundaries))
