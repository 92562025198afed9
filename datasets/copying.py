"""Copying task: remember a few symbols over a long delay and repeat them in order."""

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from seqmem.arguments import checked
from seqmem.data import Batch, DataSet, DataSpec, Provenance, Seed, Split, generator, random_subsets, sha256

BLANK = 0


class Copying(DataSet):
    """Sequences of L + 2M symbols from an alphabet of A.

    M symbols to remember, each uniform on 1 to A-2, come first, or, if ``variable``, at random positions among the first L + M,
    in order. The other steps among these are blanks (0), and M markers (A-1) follow. The target at the k-th marker is the k-th
    symbol: the last M outputs are a classification over A classes.

    Inputs are tokens (B, L + 2M), targets (B, M). All sequences are drawn independently, so splits share one only by chance.

    Source: Hochreiter and Schmidhuber (1997); ``variable`` as in HiPPO's original code.
    """

    name = "copying"
    separate_test = True

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
        """Draw the symbols and their positions; sequences are built batch by batch.

        Args:
            length: L, number of blanks in a sequence.
            tokens: M, number of symbols to remember.
            alphabet: A, number of different symbols, the blank and the marker included.
            variable: place the symbols at random positions instead of at the beginning.
            train_samples: sequences for training.
            validation_samples: sequences for validation.
            test_samples: sequences for test.
            seed: seed of all three splits, which are drawn independently.
            num_workers: worker processes that make batches; 0 makes them in the main process.
        """
        self._marker = alphabet - 1
        self._symbols: dict[Split, Tensor] = {}
        self._positions: dict[Split, Tensor] = {}
        sums: dict[Split, str] = {}
        sizes: dict[Split, int] = {"train": train_samples, "validation": validation_samples, "test": test_samples}
        for split, size in sizes.items():
            random = generator(seed, self.name, split)
            symbols, positions = draw_symbols(random, size, length + tokens, tokens, alphabet, variable)
            self._symbols[split] = torch.from_numpy(symbols)
            self._positions[split] = torch.from_numpy(positions)
            sums[split] = sha256(symbols, positions)
        steps = length + 2 * tokens
        spec = DataSpec(self.name, alphabet, alphabet, "classification", output_steps=tokens, max_length=steps, tokens=True)
        super().__init__(spec, sizes, Provenance(seed, sums), num_workers)

    def batch(self, split: Split, indices: Tensor) -> Batch:
        """Return inputs (B, L + 2M) int64 tokens and targets (B, M) int64."""
        symbols, positions = self._symbols[split][indices], self._positions[split][indices]
        steps = self.spec.max_length - symbols.shape[1]
        return Batch(torch.from_numpy(place_symbols(symbols.numpy(), positions.numpy(), steps, self._marker)), symbols)


class CopyMemory(Copying):
    """The copy memory task of IGLOO's original code: sequences of T + 20 symbols.

    Ten symbols to remember, each uniform on 0 to 7, come first; T - 1 blanks (8) and 11 markers (9) follow. The targets at the
    last ten markers are the symbols in order, a classification over 8 classes: guessing has an accuracy of 1/8.

    Inputs are the symbols as numbers, (B, T + 20, 1) floating point, or as tokens (B, T + 20); targets are (B, 10).
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
        """Draw the symbols; sequences are built batch by batch.

        Args:
            length: T; a sequence has ``length + 20`` steps.
            encoding: "raw" for numbers, as in the original; "one_hot" for tokens, which models encode one-hot or embed.
            train_samples: sequences for training; 45,000 and 5,000 for validation as in the original.
            validation_samples: sequences for validation.
            test_samples: sequences for test.
            seed: seed of all three splits, which are drawn independently.
            num_workers: worker processes that make batches; 0 makes them in the main process.
        """
        sizes = {"train_samples": train_samples, "validation_samples": validation_samples, "test_samples": test_samples}
        super().__init__(length=length, tokens=10, alphabet=10, seed=seed, num_workers=num_workers, **sizes)
        tokens = encoding == "one_hot"
        self.spec = replace(self.spec, input_size=10 if tokens else 1, output_size=8, tokens=tokens)

    def batch(self, split: Split, indices: Tensor) -> Batch:
        """Return inputs (B, T + 20) int64 tokens or (B, T + 20, 1) float32, and targets (B, 10) int64."""
        copying = super().batch(split, indices)
        inputs = copying.inputs
        inputs[:, -11] = self._marker
        # From blanks 0, symbols 1 to 8 and markers 9 to symbols 0 to 7, blanks 8 and markers 9.
        inputs = torch.where(inputs == self._marker, inputs, (inputs - 1) % self._marker)
        return Batch(inputs if self.spec.tokens else inputs.float()[..., None], copying.targets - 1)


def draw_symbols(
    random: np.random.Generator, count: int, steps: int, tokens: int, alphabet: int, variable: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Draw symbols to remember and their steps.

    Args:
        random: source of the random numbers.
        count: B, number of sequences.
        steps: number of steps before the markers.
        tokens: M, number of symbols of a sequence.
        alphabet: A; symbols are uniform on 1 to A-2.
        variable: the steps are a random subset instead of the first M.

    Returns:
        Symbols and their steps in ascending order, (B, M) int64 each.
    """
    symbols = random.integers(1, alphabet - 1, (count, tokens))
    if variable:
        return symbols, np.sort(random_subsets(random, count, tokens, steps), axis=1)
    return symbols, np.tile(np.arange(tokens), (count, 1))


def place_symbols(symbols: np.ndarray, positions: np.ndarray, steps: int, marker: int) -> np.ndarray:
    """Return sequences (B, steps + M) int64: symbols (B, M) at their positions (B, M), blanks elsewhere, and M markers."""
    count, tokens = symbols.shape
    inputs = np.full((count, steps + tokens), BLANK)
    np.put_along_axis(inputs, positions, symbols, axis=1)
    inputs[:, steps:] = marker
    return inputs
