"""Selective copying: repeat the data tokens among many steps of noise, in order."""

from typing import Annotated

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt

from seqmem.arguments import checked
from seqmem.data import SPLITS, DataSpec, GeneratedDataSet, Seed
from seqmem.datasets.copying import draw_symbols, place_symbols
from seqmem.errors import UserError


class SelectiveCopying(GeneratedDataSet):
    """T steps with M data tokens at random places, and M markers, at which the tokens are the targets in order.

    The data tokens are uniform on 1 to A-2, at a uniformly random subset of the T places; the other places are noise (0), and
    the markers are A-1. This is ``copying`` with ``variable=true`` and T - M blanks. Inputs are tokens (B, T + M), targets
    (B, M).

    Source: Gu and Dao (2023), Mamba, section 4.1.1.
    """

    name = "selective_copying"

    @checked
    def __init__(
        self,
        length: PositiveInt = 4096,
        tokens: PositiveInt = 16,
        alphabet: Annotated[int, Field(ge=3)] = 16,
        fresh: bool = True,
        train_samples: PositiveInt = 64_000,
        validation_samples: PositiveInt = 1_000,
        test_samples: PositiveInt = 2_000,
        seed: Seed = 0,
        num_workers: NonNegativeInt = 0,
    ):
        """Store the sizes; sequences are drawn when they are needed.

        Args:
            length: T, steps before the markers.
            tokens: M, number of data tokens in a sequence.
            alphabet: A, number of different symbols, the noise and the marker included.
            fresh: draw training sequences anew in each epoch, from the trial's seed.
            train_samples: sequences for training, or those that count as an epoch if ``fresh``; 1,000 batches of 64.
            validation_samples: sequences for validation.
            test_samples: sequences for test.
            seed: seed of the splits that are not drawn anew.
            num_workers: worker processes that make batches; 0 makes them in the main process.

        Raises:
            UserError: there are more ``tokens`` than steps.
        """
        if tokens > length:
            raise UserError(
                f"dataset.tokens: got {tokens}, expected at most dataset.length={length}, the steps before the markers"
            )
        self._tokens, self._alphabet = tokens, alphabet
        spec = DataSpec(
            self.name, alphabet, alphabet, "classification", output_steps=tokens, max_length=length + tokens, tokens=True
        )
        super().__init__(
            spec,
            {"train": train_samples, "validation": validation_samples, "test": test_samples},
            dict.fromkeys(SPLITS, (length,)),
            seed=seed,
            fresh=fresh,
            num_workers=num_workers,
        )

    def draw(self, random: np.random.Generator, count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return tokens (count, length + M) and targets (count, M)."""
        symbols, positions = draw_symbols(random, count, length, self._tokens, self._alphabet, variable=True)
        return place_symbols(symbols, positions, length, self._alphabet - 1), symbols
