"""Stretches of two waves from which a third is made: sequences of other size than what is wanted for them."""

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from seqmem.arguments import checked
from seqmem.data.batch import Batch
from seqmem.data.dataset import DataSet
from seqmem.data.provenance import Provenance, sha256
from seqmem.data.seeds import Seed, generator
from seqmem.data.spec import DataSpec
from seqmem.data.splits import Split
from seqmem.errors import UserError

POINTS, END = 1000, 150.0
"""The stretches are cut from so many points at equal distances from 0 to this: a point is 0.15 rad further than the last."""


class PhaseSignals(DataSet):
    """Inputs (2 sin t, 2 cos t) at consecutive points of a grid, targets 2 sin t + 2 cos t at the same points, or at some.

    The toy data of the original of ``seq2seq_ae``. A stretch starts anywhere on the grid and has between 20 and 40 points, all
    equally likely. ``stride`` wants every so many of the targets only, from the first on: another length than the inputs'.
    """

    name = "phase_signals"

    @checked
    def __init__(
        self,
        shortest: PositiveInt = 20,
        longest: PositiveInt = 40,
        stride: PositiveInt = 1,
        train_samples: PositiveInt = 100,
        validation_samples: PositiveInt = 100,
        test_samples: PositiveInt = 100,
        seed: Seed = 0,
        num_workers: NonNegativeInt = 0,
    ):
        """Draw the stretches.

        Args:
            shortest: points of the shortest stretch.
            longest: points of the longest.
            stride: the targets are those of every so many points.
            train_samples: sequences for training.
            validation_samples: sequences for validation.
            test_samples: sequences for test.
            seed: of the stretches.
            num_workers: processes that make batches; 0 makes them in the main one.

        Raises:
            UserError: ``longest`` is less than ``shortest``, or more than the grid has.
        """
        if not shortest <= longest < POINTS:
            raise UserError(f"dataset.longest: got {longest}, expected between dataset.shortest={shortest} and {POINTS - 1}")
        sizes: dict[Split, int] = {"train": train_samples, "validation": validation_samples, "test": test_samples}
        self._longest, self._stride = longest, stride
        self._cuts: dict[Split, Tensor] = {}
        for split, size in sizes.items():
            random = generator(seed, self.name, split)
            lengths = random.integers(shortest, longest + 1, size)
            self._cuts[split] = torch.from_numpy(np.stack([random.integers(0, POINTS - lengths + 1), lengths], 1))
        spec = DataSpec(self.name, 2, 1, "reconstruction", output_steps=None, max_length=longest)
        super().__init__(
            spec, sizes, Provenance(seed, {split: sha256(cuts.numpy()) for split, cuts in self._cuts.items()}), num_workers
        )

    def batch(self, split: Split, indices: Tensor) -> Batch:
        """Inputs (B, T, 2) and targets (B, T', 1) float32, 0 where padded; lengths (B,) of both."""
        starts, lengths = self._cuts[split][indices].unbind(1)
        steps = torch.arange(self._longest)
        t = (starts[:, None] + steps).double() * (END / (POINTS - 1))
        inputs = 2 * torch.stack([t.sin(), t.cos()], -1)
        targets = inputs.sum(-1, keepdim=True)[:, :: self._stride]
        valid = steps < lengths[:, None]
        wanted = torch.arange(targets.shape[1]) * self._stride < lengths[:, None]
        return Batch(
            inputs.where(valid[..., None], 0).float(),
            targets.where(wanted[..., None], 0).float(),
            lengths=lengths,
            target_lengths=None if self._stride == 1 else -(-lengths // self._stride),
        )
