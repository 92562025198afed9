"""Finding maxima: at how many steps of a sequence is the largest channel one of the upper half?"""

from typing import Annotated

import numpy as np
import torch
from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt
from torch import Tensor

from seqmem.arguments import checked
from seqmem.data.batch import Batch
from seqmem.data.dataset import DataSet
from seqmem.data.provenance import Provenance, sha256
from seqmem.data.seeds import Seed, generator
from seqmem.data.spec import DataSpec
from seqmem.data.splits import Split


def _even(value: int) -> int:
    if value % 2:
        raise ValueError("an even number")
    return value


class FindMax(DataSet):
    """Sequences of T vectors of C normal numbers; the class is the number of steps whose maximum is in channels C/2 to C - 1.

    That number is uniform on 0 to T, and so are the steps, given the number: at each the vector is standard normal under the
    condition that its maximum lies where it should. (Of free vectors about half would have it there in nearly every sequence.)

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
            seed: of all three splits, which are drawn independently of each other.
            num_workers: processes that make batches; 0 makes them in the main one.
        """
        self._vectors: dict[Split, Tensor] = {}
        self._counts: dict[Split, Tensor] = {}
        sums: dict[Split, str] = {}
        sizes: dict[Split, int] = {"train": train_samples, "validation": validation_samples, "test": test_samples}
        for split, size in sizes.items():
            random = generator(seed, self.name, split)
            counts = random.integers(0, length + 1, size)
            wanted = random.permuted(np.arange(length) < counts[:, None], axis=1)
            vectors = random.standard_normal((size, length, channels), dtype=np.float32)
            # Changing the halves over makes the one condition the other, and leaves all else as likely.
            wrong = (vectors.argmax(-1) >= channels // 2) != wanted
            vectors[wrong] = np.roll(vectors[wrong], channels // 2, axis=-1)
            self._vectors[split], self._counts[split] = torch.from_numpy(vectors), torch.from_numpy(counts)
            sums[split] = sha256(vectors, counts)
        spec = DataSpec(self.name, channels, length + 1, "classification", output_steps=0, max_length=length)
        super().__init__(spec, sizes, Provenance(seed, sums), num_workers)

    def batch(self, split: Split, indices: Tensor) -> Batch:
        """Inputs (B, T, C) float32, targets (B,) int64."""
        return Batch(self._vectors[split][indices], self._counts[split][indices])
