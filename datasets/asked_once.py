"""Base class of tasks of formal languages: random symbols, and one question after the last of them."""

from collections.abc import Mapping
from itertools import count
from typing import Any, ClassVar

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from seqmem.arguments import checked
from seqmem.data import DataSpec, GeneratedDataSet, Seed, mixed_lengths
from seqmem.errors import UserError


class AskedOnce(GeneratedDataSet):
    """Sequences of T random symbols and then one more, at which the answer is expected.

    Inputs are tokens (B, T + 1), targets (B,). Training and validation have the lengths from ``min_length`` to ``length``. The
    test has larger ones, as in the source, so that its accuracy is the source's score: the mean accuracy over the lengths
    above those of training. ``test_min_length=1 test_length=40`` tests at the lengths of training instead. There are few short
    sequences, so some may be in several splits.

    Source: Deletang et al. (2022), Neural Networks and the Chomsky Hierarchy.

    Attributes:
        symbols: number of symbols, which are tokens from 0; the token that follows them is that of the last step.
        classes: number of different answers.
    """

    symbols: ClassVar[int]
    classes: ClassVar[int]

    @checked
    def __init__(
        self,
        length: PositiveInt = 40,
        min_length: PositiveInt = 1,
        test_length: PositiveInt = 100,
        test_min_length: PositiveInt | None = None,
        fresh: bool = True,
        train_samples: PositiveInt = 12_800,
        validation_samples: PositiveInt = 128,
        test_samples: PositiveInt = 512,
        seed: Seed = 0,
        num_workers: NonNegativeInt = 0,
    ):
        """Store the lengths; sequences are drawn when they are needed.

        Args:
            length: T of the longest sequence in training and validation.
            min_length: T of the shortest one; all lengths between are equally likely, one a batch.
            test_length: T of the longest sequence in the test; 100 as in the original's example, 500 in the paper.
            test_min_length: T of the shortest one; None for the first above those of training.
            fresh: draw training sequences anew in each epoch, from the trial's seed.
            train_samples: sequences for training, or those that count as an epoch if ``fresh``.
            validation_samples: sequences of each length for validation.
            test_samples: sequences of each length for test.
            seed: seed of the splits that are not drawn anew.
            num_workers: worker processes that make batches; 0 makes them in the main process.

        Raises:
            UserError: a shortest length is more than the longest one.
        """
        trained = mixed_lengths(min_length, length)
        longer = next(more for more in count(length + 1) if self.symbols_of(more) > self.symbols_of(length))
        tested = range(longer if test_min_length is None else test_min_length, test_length + 1)
        if not tested:
            raise UserError(_no_test_length(length, test_length, longer, test_min_length))
        spec = DataSpec(
            self.name,
            self.symbols + 1,
            self.classes,
            "classification",
            output_steps=0,
            max_length=max(length, test_length) + 1,
            tokens=True,
            answers_at_end=True,
        )
        super().__init__(
            spec,
            {"train": train_samples, "validation": validation_samples * len(trained), "test": test_samples * len(tested)},
            {"train": trained, "validation": trained, "test": tested},
            seed=seed,
            fresh=fresh,
            num_workers=num_workers,
        )

    @classmethod
    def symbols_of(cls, length: int) -> int:
        """Return the number T of symbols of a sequence of a length; a subclass may override it, for fewer."""
        return length

    @classmethod
    def at_length(cls, arguments: Mapping[str, Any], length: int) -> dict[str, Any]:
        """Return the arguments of a test at one length; those of training stay."""
        return {**arguments, "test_min_length": length, "test_length": length}

    def asked(self, sequences: np.ndarray) -> np.ndarray:
        """Return sequences (B, T) of symbols with the token of the last step after them, (B, T + 1)."""
        return np.pad(sequences, [(0, 0), (0, 1)], constant_values=self.symbols)


def _no_test_length(length: int, longest: int, longer: int, shortest: int | None) -> str:
    """Return the message that there is no length for the test."""
    if shortest is None:
        return (
            f"dataset.test_length: got {longest}, expected at least {longer}, the next that is longer than "
            f"dataset.length={length}; dataset.test_min_length=1 also tests shorter sequences"
        )
    return f"dataset.test_min_length: got {shortest}, expected at most dataset.test_length={longest}"
