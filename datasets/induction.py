"""Induction heads: recall the symbol that followed the trigger."""

from typing import Annotated

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt

from seqmem.arguments import checked
from seqmem.data import SPLITS, DataSpec, GeneratedDataSet, Seed


class Induction(GeneratedDataSet):
    """A text of T symbols that holds the trigger once, and the trigger again; the target is the symbol after the first one.

    The trigger is the symbol A-1. The others of the text are uniform on 0 to A-2. The place of the trigger is uniform on the
    places 0 to T-3. Inputs are tokens (B, T + 1), targets (B,): guessing has an accuracy of 1 / (A - 1).

    Source: Gu and Dao (2023), Mamba, section 4.1.2.
    """

    name = "induction"

    @checked
    def __init__(
        self,
        length: Annotated[int, Field(ge=3)] = 256,
        alphabet: Annotated[int, Field(ge=3)] = 16,
        fresh: bool = True,
        train_samples: PositiveInt = 65_536,
        validation_samples: PositiveInt = 1_000,
        test_samples: PositiveInt = 1_000,
        seed: Seed = 0,
        num_workers: NonNegativeInt = 0,
    ):
        """Store the sizes; sequences are drawn when they are needed.

        Args:
            length: T, steps of the text; the trigger follows it.
            alphabet: A, number of different symbols, the trigger included.
            fresh: draw training sequences anew in each epoch, from the trial's seed.
            train_samples: sequences for training, or those that count as an epoch if ``fresh``; 8,192 batches of 8.
            validation_samples: sequences for validation.
            test_samples: sequences for test.
            seed: seed of the splits that are not drawn anew.
            num_workers: worker processes that make batches; 0 makes them in the main process.
        """
        self._trigger = alphabet - 1
        spec = DataSpec(
            self.name,
            alphabet,
            alphabet,
            "classification",
            output_steps=0,
            max_length=length + 1,
            tokens=True,
            answers_at_end=True,
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
        """Return tokens (count, length + 1) and targets (count,)."""
        inputs = random.integers(0, self._trigger, (count, length + 1))
        rows, places = np.arange(count), random.integers(0, length - 2, count)
        inputs[rows, places] = inputs[:, -1] = self._trigger
        return inputs, inputs[rows, places + 1]
