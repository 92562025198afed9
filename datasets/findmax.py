"""Finding maxima: count the steps of a sequence whose largest channel is in the upper half."""

from typing import Annotated

import numpy as np
import torch
from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt
from torch import Tensor

from seqmem.arguments import checked
from seqmem.data import Batch, DataSet, DataSpec, Provenance, Seed, Split, generator, sha256


def _even(value: int) -> int:
    if value % 2:
        raise ValueError("an even number")
    return value


class FindMax(DataSet):
    """Sequences of T vectors of C numbers; the class is the number of steps with the maximum in the upper half.

    The upper half are channels C/2 to C - 1. The number of such steps is uniform on 0 to T, and the steps are uniform given the
    number. Each vector is standard normal under the condition that its maximum is in the chosen half. (Without the condition,
    nearly every sequence would have about T / 2 such steps.)

    Inputs are (B, T, C), targets (B,) of T + 1 classes.
    """

    name = "findmax"

    @checked
    def __init__(
        self,
        length: PositiveInt = 20,
        channels: Annotated[int, Field(ge=2), AfterValidator(_even)] = 10,
        train_samples: PositiveInt = 49_500,
        validation_samples: PositiveInt = 5_500,
        test_samples: PositiveInt = 5_000,
        seed: Seed = 0,
        num_workers: NonNegativeInt = 0,
    ):
        """Draw the vectors (4 C bytes a step in memory).

        Args:
            length: T, steps of a sequence.
            channels: C, an even number.
            train_samples: sequences for training.
            validation_samples: sequences for validation.
            test_samples: sequences for test.
            seed: seed of all three splits, which are drawn independently.
            num_workers: worker processes that make batches; 0 makes them in the main process.
        """
        self._vectors: dict[Split, Tensor] = {}
        self._counts: dict[Split, Tensor] = {}
        sums: dict[Split, str] = {}
        sizes: dict[Split, int] = {"train": train_samples, "validation": validation_samples, "test": test_samples}
        for split, size in sizes.items():
            random = generator(seed, self.name, split)
            counts = random.integers(0, length + 1, size)
            upper = random.permuted(np.arange(length) < counts[:, None], axis=1)
            vectors = random.standard_normal((size, length, channels), dtype=np.float32)
            # Swapping the halves of a vector moves its maximum to the other half and does not change the distribution
            # otherwise.
            wrong = (vectors.argmax(-1) >= channels // 2) != upper
            vectors[wrong] = np.roll(vectors[wrong], channels // 2, axis=-1)
            self._vectors[split], self._counts[split] = torch.from_numpy(vectors), torch.from_numpy(counts)
            sums[split] = sha256(vectors, counts)
        spec = DataSpec(self.name, channels, length + 1, "classification", output_steps=0, max_length=length)
        super().__init__(spec, sizes, Provenance(seed, sums), num_workers)

    def batch(self, split: Split, indices: Tensor) -> Batch:
        """Return inputs (B, T, C) float32 and targets (B,) int64."""
        return Batch(self._vectors[split][indices], self._counts[split][indices])
