"""Adding problem: find the two marked numbers in a long sequence and add them."""

from typing import Annotated

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from seqmem.arguments import checked
from seqmem.data import Batch, DataSet, DataSpec, Provenance, Seed, Split, generator, sha256


class Adding(DataSet):
    """Sequences of T random numbers; the target at the end is the sum of the two marked ones.

    Inputs are (B, T, 2): channel 0 has the numbers, uniform on [0, 1), channel 1 the markers (1 at the two marked steps, 0
    elsewhere). Targets are (B, 1). One step of each half is marked; the first half is the first floor(T / 2) steps. Always
    predicting 1 has a mean squared error of 1/6.

    Source: Hochreiter and Schmidhuber (1997), in the form of Arjovsky, Shah and Bengio (2016).
    """

    name = "adding"
    separate_test = True

    @checked
    def __init__(
        self,
        length: Annotated[int, Field(ge=2)] = 1000,
        train_samples: PositiveInt = 49_500,
        validation_samples: PositiveInt = 5_500,
        test_samples: PositiveInt = 5_000,
        seed: Seed = 0,
        num_workers: NonNegativeInt = 0,
    ):
        """Draw the numbers (4 bytes each in memory) and the marked steps.

        Args:
            length: T, steps of a sequence.
            train_samples: sequences for training.
            validation_samples: sequences for validation.
            test_samples: sequences for test.
            seed: seed of all three splits, which are drawn independently.
            num_workers: worker processes that make batches; 0 makes them in the main process.
        """
        self._numbers: dict[Split, Tensor] = {}
        self._marked: dict[Split, Tensor] = {}
        sums: dict[Split, str] = {}
        sizes: dict[Split, int] = {"train": train_samples, "validation": validation_samples, "test": test_samples}
        for split, size in sizes.items():
            random = generator(seed, self.name, split)
            numbers = random.random((size, length), dtype=np.float32)
            marked = self.draw_marks(random, size, length)
            self._numbers[split] = torch.from_numpy(numbers)
            self._marked[split] = torch.from_numpy(marked)
            sums[split] = sha256(numbers, marked)
        spec = DataSpec(self.name, 2, 1, "regression", output_steps=0, max_length=length)
        super().__init__(spec, sizes, Provenance(seed, sums), num_workers)

    def draw_marks(self, random: np.random.Generator, size: int, length: int) -> np.ndarray:
        """Draw the two marked steps of each sequence, (size, 2) int64."""
        return random.integers([0, length // 2], [length // 2, length], (size, 2))

    def batch(self, split: Split, indices: Tensor) -> Batch:
        """Return inputs (B, T, 2) float32 and targets (B, 1) float32."""
        numbers, marked = self._numbers[split][indices], self._marked[split][indices]
        markers = torch.zeros_like(numbers).scatter_(1, marked, 1.0)
        return Batch(torch.stack([numbers, markers], dim=-1), numbers.gather(1, marked).sum(dim=1, keepdim=True))


class Addition(Adding):
    """The adding problem with the marks at any two different steps, as in IGLOO's original code.

    Inputs are (B, T, 2), targets (B, 1), as in ``adding``.
    """

    name = "addition"

    def draw_marks(self, random: np.random.Generator, size: int, length: int) -> np.ndarray:
        """Draw the two marked steps of each sequence, (size, 2) int64."""
        first, second = random.integers(0, [length, length - 1], (size, 2)).T
        return np.stack([first, second + (second >= first)], 1)
