"""Multi-query associative recall: remember pairs of keys and values, and give the value of each key that comes again."""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt

from seqmem.arguments import checked
from seqmem.data import (
    IGNORE_INDEX,
    SPLITS,
    DataSpec,
    GeneratedDataSet,
    Seed,
    Split,
    distinct_integers,
    generator,
    random_subsets,
)
from seqmem.errors import UserError

EMBEDDING_SIZE = 64
"""Default width of the embedding. One-hot tokens of the default vocabulary would take gigabytes a batch."""


class MQAR(GeneratedDataSet):
    """N pairs of a key and a value, and then each key once more, where its value is the target.

    The keys of a sequence are different numbers from 1 to V/2 - 1, its values different ones from V/2 to V - 1. The first 2 N
    steps are key, value, key, value, ... The keys come again at the steps 2 N + 2 (j - 1), counted from 0. Their different j
    are drawn without replacement from 1 to (T - 2 N) / 2, with probabilities in proportion to j^(power - 1), so that short
    distances are more likely. The other steps are the filling.

    Inputs are tokens (B, T). Targets (B, T) have a value at each such step, and ``IGNORE_INDEX`` elsewhere.
    With a mixture, each training batch has one of several T and N.

    Source: Arora et al. (2023), Zoology, appendix; the filling as in their code.
    """

    name = "mqar"

    @checked
    def __init__(
        self,
        length: PositiveInt = 64,
        pairs: PositiveInt = 4,
        vocabulary: Annotated[int, Field(ge=4)] = 8192,
        filling: Literal["random", "zeros"] = "random",
        power: Annotated[float, Field(gt=0, le=10)] = 0.01,
        mixture: list[Annotated[list[PositiveInt], Field(min_length=2, max_length=2)]] | None = None,
        fresh: bool = True,
        train_samples: PositiveInt = 100_000,
        validation_samples: PositiveInt = 1_000,
        test_samples: PositiveInt = 3_000,
        seed: Seed = 0,
        num_workers: NonNegativeInt = 0,
    ):
        """Store the sizes; sequences are drawn when they are needed.

        Args:
            length: T, steps of a sequence, an even number.
            pairs: N, number of keys and values; the source has [T, N] of [64, 4], [128, 8], [256, 16], [512, 64].
            vocabulary: V, number of different tokens, half of them keys and half values.
            filling: "random" for tokens that are uniform on 0 to V - 1, "zeros" for the token 0, which is not a key.
            power: exponent of the distances' distribution; 1 makes all equally likely.
            mixture: [T, N] of training batches, each as often; None for ``length`` and ``pairs``, as in validation and test.
            fresh: draw training sequences anew in each epoch, from the trial's seed; the source has a fixed training split.
            train_samples: sequences for training, or those that count as an epoch if ``fresh``.
            validation_samples: sequences for validation.
            test_samples: sequences for test.
            seed: seed of the splits that are not drawn anew.
            num_workers: worker processes that make batches; 0 makes them in the main process.

        Raises:
            UserError: a T is odd, an N is more than a quarter of T or than the number of keys, or the mixture has a T twice.
        """
        _refuse(length, pairs, vocabulary)
        trained = {length: pairs} if mixture is None else _mixed(mixture, vocabulary)
        self._pairs, self._trained_pairs = pairs, trained
        self._vocabulary, self._filling, self._power = vocabulary, filling, power
        spec = DataSpec(
            self.name,
            vocabulary,
            vocabulary,
            "classification",
            output_steps=None,
            max_length=max(length, *trained),
            tokens=True,
            embedding_size=EMBEDDING_SIZE,
            sparse_targets=True,
        )
        super().__init__(
            spec,
            {"train": train_samples, "validation": validation_samples, "test": test_samples},
            {**dict.fromkeys(SPLITS, (length,)), "train": sorted(trained)},
            seed=seed,
            fresh=fresh,
            num_workers=num_workers,
        )

    def draw(self, random: np.random.Generator, count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return tokens and targets of training, (count, length) each."""
        return self._recall(random, count, length, self._trained_pairs[length])

    def draw_fixed(self, split: Split, first: int, count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw sequences of a fixed split; validation and test have a number of pairs of their own."""
        random = generator(self.seed, self.name, split, length, first)
        return self._recall(random, count, length, self._trained_pairs[length] if split == "train" else self._pairs)

    def _recall(self, random: np.random.Generator, count: int, length: int, pairs: int) -> tuple[np.ndarray, np.ndarray]:
        half = self._vocabulary // 2
        keys = 1 + distinct_integers(random, count, pairs, half - 1)
        values = half + distinct_integers(random, count, pairs, self._vocabulary - half)
        distances = (length - 2 * pairs) // 2
        weights = np.arange(1, distances + 1) ** (self._power - 1)
        places = 2 * pairs + 2 * random_subsets(random, count, pairs, distances, weights)
        inputs = random.integers(0, self._vocabulary if self._filling == "random" else 1, (count, length))
        inputs[:, 0 : 2 * pairs : 2], inputs[:, 1 : 2 * pairs : 2] = keys, values
        np.put_along_axis(inputs, places, keys, axis=1)
        targets = np.full((count, length), IGNORE_INDEX)
        np.put_along_axis(targets, places, values, axis=1)
        return inputs, targets


def _mixed(mixture: Sequence[Sequence[int]], vocabulary: int) -> dict[int, int]:
    """Return N by T."""
    if not mixture:
        raise UserError(
            "dataset.mixture: got [], expected [T, N] of training batches, or null for dataset.length and dataset.pairs"
        )
    by_length: dict[int, int] = {}
    for number, (length, pairs) in enumerate(mixture):
        place = f"dataset.mixture.{number}"
        _refuse(length, pairs, vocabulary, f"{place}.0", f"{place}.1")
        if length in by_length:
            raise UserError(f"{place}.0: got {length} a second time, expected different lengths")
        by_length[length] = pairs
    return by_length


def _refuse(length: int, pairs: int, vocabulary: int, steps: str = "dataset.length", number: str = "dataset.pairs") -> None:
    if length % 2:
        raise UserError(f"{steps}: got {length}, expected an even number; did you mean {length + 1}?")
    if 4 * pairs > length:
        raise UserError(
            f"{number}: got {pairs}, expected at most {length // 4}, a quarter of {steps}={length}; "
            f"{steps}={4 * pairs} has room for {pairs}"
        )
    if pairs > vocabulary // 2 - 1:
        raise UserError(
            f"{number}: got {pairs}, expected at most {vocabulary // 2 - 1}, the keys of "
            f"dataset.vocabulary={vocabulary}; dataset.vocabulary={2 * pairs + 2} has {pairs} keys"
        )
