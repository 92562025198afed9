"""The copying task: remember a few symbols over a long delay and repeat them in order."""

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from seqmem.arguments import checked
from seqmem.data.batch import Batch
from seqmem.data.dataset import DataSet
from seqmem.data.provenance import Provenance, sha256
from seqmem.data.seeds import Seed, generator
from seqmem.data.spec import DataSpec
from seqmem.data.splits import Split

BLANK = 0


class Copying(DataSet):
    """Sequences of L + 2M symbols out of an alphabet of A.

    M symbols to remember, each uniform on 1 to A-2, stand in front, or, if ``variable``, at random positions among the first
    L + M, in order. The rest of those are blanks (0); M markers (A-1) follow. At the k-th marker the k-th symbol is wanted: the
    last M outputs are a classification over A classes, for any M and A.

    Inputs are tokens (B, L + 2M), targets (B, M). Every sequence is drawn independently, so splits share one only by chance.
    """

    name = "copying"

    @checked
    def __init__(
        self,
        length: PositiveInt = 100,
        tokens: PositiveInt = 10,
        alphabet: Annotated[int, Field(ge=3)] = 10,
        variable: bool = False,
        train_samples: PositiveInt = 49_500,
        validation_samples: PositiveInt = 5_500,
        test_samples: PositiveInt = 5_000,
        seed: Seed = 0,
        num_workers: NonNegativeInt = 0,
    ):
        """Draw the symbols and their positions; the sequences are written out a batch at a time.

        Args:
            length: L, the blanks in a sequence.
            tokens: M, the symbols to remember.
            alphabet: A, the symbols to remember together with the blank and the marker.
            variable: whether the symbols stand at random positions instead of in front.
            train_samples: sequences for training.
            validation_samples: sequences for validation.
            test_samples: sequences for test.
            seed: of all three splits, which are drawn independently of each other.
            num_workers: processes that make batches; 0 makes them in the main one.
        """
        self._marker = alphabet - 1
        self._symbols: dict[Split, Tensor] = {}
        self._positions: dict[Split, Tensor] = {}
        sums: dict[Split, str] = {}
        sizes: dict[Split, int] = {"train": train_samples, "validation": validation_samples, "test": test_samples}
        for split, size in sizes.items():
            random = generator(seed, self.name, split)
            symbols = random.integers(1, alphabet - 1, (size, tokens))
            if variable:
                positions = _sorted_subsets(random, size, tokens, length + tokens)
            else:
                positions = np.tile(np.arange(tokens), (size, 1))
            self._symbols[split] = torch.from_numpy(symbols)
            self._positions[split] = torch.from_numpy(positions)
            sums[split] = sha256(symbols, positions)
        steps = length + 2 * tokens
        spec = DataSpec(self.name, alphabet, alphabet, "classification", output_steps=tokens, max_length=steps, tokens=True)
        super().__init__(spec, sizes, Provenance(seed, sums), num_workers)

    def batch(self, split: Split, indices: Tensor) -> Batch:
        """Inputs (B, L + 2M) int64 tokens, targets (B, M) int64."""
        symbols = self._symbols[split][indices]
        rows, tokens = symbols.shape
        inputs = torch.full((rows, self.spec.max_length), BLANK)
        inputs.scatter_(1, self._positions[split][indices], symbols)
        inputs[:, -tokens:] = self._marker
        return Batch(inputs, symbols)


class CopyMemory(Copying):
    """The copy memory task of IGLOO's original code: sequences of T + 20 symbols.

    Ten symbols to remember, each uniform on 0 to 7, stand in front; T - 1 blanks (8) and 11 markers (9) follow. At the last ten
    markers the symbols are wanted in order, a classification over 8 classes: guessing is right in one case of eight.

    Inputs are the symbols as they are, (B, T + 20, 1) floating point, or tokens (B, T + 20); targets are (B, 10).
    """

    name = "copy_memory"

    @checked
    def __init__(
        self,
        length: PositiveInt = 1000,
        encoding: Literal["raw", "one_hot"] = "raw",
        train_samples: PositiveInt = 45_000,
        validation_samples: PositiveInt = 5_000,
        test_samples: PositiveInt = 5_000,
        seed: Seed = 0,
        num_workers: NonNegativeInt = 0,
    ):
        """Draw the symbols; the sequences are written out a batch at a time.

        Args:
            length: T; a sequence has ``length + 20`` steps.
            encoding: "raw" for numbers, as in the original, "one_hot" for tokens, which models see one-hot or embedded.
            train_samples: sequences for training; 45,000 and 5,000 for validation as in the original.
            validation_samples: sequences for validation.
            test_samples: sequences for test.
            seed: of all three splits, which are drawn independently of each other.
            num_workers: processes that make batches; 0 makes them in the main one.
        """
        sizes = {"train_samples": train_samples, "validation_samples": validation_samples, "test_samples": test_samples}
        super().__init__(length=length, tokens=10, alphabet=10, seed=seed, num_workers=num_workers, **sizes)
        tokens = encoding == "one_hot"
        self.spec = replace(self.spec, input_size=10 if tokens else 1, output_size=8, tokens=tokens)

    def batch(self, split: Split, indices: Tensor) -> Batch:
        """Inputs (B, T + 20) int64 tokens or (B, T + 20, 1) float32, targets (B, 10) int64."""
        copying = super().batch(split, indices)
        inputs = copying.inputs
        inputs[:, -11] = self._marker
        # From blanks 0, symbols 1 to 8 and markers 9: the symbols move down, the blanks between them and the markers.
        inputs = torch.where(inputs == self._marker, inputs, (inputs - 1) % self._marker)
        return Batch(inputs if self.spec.tokens else inputs.float()[..., None], copying.targets - 1)


def _sorted_subsets(random: np.random.Generator, rows: int, size: int, count: int) -> np.ndarray:
    """(rows, size) int64: in each row a uniformly random subset of 0 to ``count - 1``, sorted."""
    # The places of the smallest of random keys are such a subset. In blocks: the keys of all rows may not fit in memory, nor
    # may the whole arrays that the subsets are cut from.
    block = max(1, 2**22 // count)
    subsets = [
        np.argpartition(random.random((min(block, rows - start), count)), size - 1, axis=1)[:, :size].copy()
        for start in range(0, rows, block)
    ]
    return np.sort(np.concatenate(subsets), axis=1)
