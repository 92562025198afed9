"""Phase signals: predict the sum of two waves, in a different size and length."""

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from seqmem.arguments import checked
from seqmem.data import Batch, DataSet, DataSpec, Provenance, Seed, Split, generator, masked, sha256
from seqmem.errors import UserError

POINTS, END = 1000, 150.0
"""The grid: 1000 points at equal distances of 0.15 rad, from 0 to 150."""


class PhaseSignals(DataSet):
    """Two waves at consecutive points t of a grid; the targets are their sum at every ``stride``-th point.

    Inputs are (2 sin t, 2 cos t), (B, T, 2). Targets are 2 sin t + 2 cos t, (B, T', 1) with T' = ceil(T / stride), both padded
    with 0, with ``lengths`` and, if ``stride`` is above 1, ``target_lengths``. A sequence starts at a random point of the grid;
    all lengths from ``shortest`` to ``longest`` are equally likely. Source: the toy data of the original code of
    ``seq2seq_ae``.
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
        """Draw the start and the length of each sequence.

        Args:
            shortest: steps of the shortest sequence.
            longest: steps of the longest sequence.
            stride: distance in steps of the targets, the first of which belongs to the first step.
            train_samples: sequences for training.
            validation_samples: sequences for validation.
            test_samples: sequences for test.
            seed: seed of starts and lengths.
            num_workers: worker processes that make batches; 0 makes them in the main process.

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
        """Return inputs (B, T, 2) and targets (B, T', 1) float32, and the lengths (B,) of both."""
        starts, lengths = self._cuts[split][indices].unbind(1)
        t = (starts[:, None] + torch.arange(self._longest)).double() * (END / (POINTS - 1))
        inputs = 2 * torch.stack([t.sin(), t.cos()], -1)
        targets = inputs.sum(-1, keepdim=True)[:, :: self._stride]
        target_lengths = -(-lengths // self._stride)
        return Batch(
            masked(inputs, lengths).float(),
            masked(targets, target_lengths).float(),
            lengths=lengths,
            target_lengths=None if self._stride == 1 else target_lengths,
        )
