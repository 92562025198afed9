"""Flip-flop language: write, ignore and read a bit."""

from typing import Annotated

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt

from seqmem.arguments import checked
from seqmem.data import IGNORE_INDEX, SPLITS, DataSpec, GeneratedDataSet, Seed, Split, generator
from seqmem.errors import UserError

SYMBOLS = "wri01"
WRITE, READ, IGNORE, ZERO = range(4)

Probability = Annotated[float, Field(ge=0, le=1)]


class FlipFlop(GeneratedDataSet):
    """FFL(p): pairs of an instruction and a bit; after each read follows the bit that was written last.

    A sequence of T symbols has T/2 instructions, each with a bit after it. The first is w, the last r, and each other one i
    (ignore) with probability p, w (write) and r (read) with (1 - p)/2 each. The bit after r is that after the latest w, others
    are uniform. The symbols w, r, i, 0, 1 are tokens 0 to 4. Inputs and targets are (B, T): the target at each r is the next
    symbol, and no other step counts. The error rate at reads is 1 - accuracy; guessing a bit has an accuracy of 1/2.

    The source trains on p = 0.8, and tests on 1,000 sequences of p = 0.8, 100,000 of 0.98 and 3,000 of 0.1: train once, and
    evaluate the trial with ``test_p=0.98 test_samples=100000`` and ``test_p=0.1 test_samples=3000``.

    Source: Liu et al. (2023), Exposing Attention Glitches with Flip-Flop Language Modeling.
    """

    name = "flip_flop"

    @checked
    def __init__(
        self,
        length: Annotated[int, Field(ge=4)] = 512,
        p: Probability = 0.8,
        test_p: Probability | None = None,
        fresh: bool = True,
        train_samples: PositiveInt = 10_000,
        validation_samples: PositiveInt = 1_000,
        test_samples: PositiveInt = 1_000,
        seed: Seed = 0,
        num_workers: NonNegativeInt = 0,
    ):
        """Store the sizes; sequences are drawn when they are needed.

        Args:
            length: T, symbols of a sequence, an even number.
            p: probability of i in training and validation; w and r have (1 - p)/2 each.
            test_p: probability of i in the test; None for ``p``.
            fresh: draw training sequences anew in each epoch, from the trial's seed.
            train_samples: sequences for training, or those that count as an epoch if ``fresh``.
            validation_samples: sequences for validation.
            test_samples: sequences for test.
            seed: seed of the splits that are not drawn anew.
            num_workers: worker processes that make batches; 0 makes them in the main process.

        Raises:
            UserError: an odd length.
        """
        if length % 2:
            raise UserError(
                f"dataset.length: got {length}, expected an even number; did you mean {length - 1} or {length + 1}?"
            )
        self._p, self._test_p = p, p if test_p is None else test_p
        spec = DataSpec(
            self.name,
            len(SYMBOLS),
            len(SYMBOLS),
            "next_symbol",
            output_steps=None,
            max_length=length,
            tokens=True,
            class_names=tuple(SYMBOLS),
            sparse_targets=True,
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
        """Return tokens (count, length) and targets (count, length) of FFL(p)."""
        return flip_flops(random, count, length, self._p)

    def draw_fixed(self, split: Split, first: int, count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw sequences of a fixed split; those of the test have a probability of their own."""
        random = generator(self.seed, self.name, split, length, first)
        return flip_flops(random, count, length, self._test_p if split == "test" else self._p)


def flip_flops(random: np.random.Generator, count: int, length: int, p: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw sequences of FFL(p).

    Args:
        random: source of all random numbers.
        count: B, number of sequences.
        length: T, an even number.
        p: probability of the instruction i.

    Returns:
        Tokens (B, T), and targets (B, T) that are ``IGNORE_INDEX`` but at reads.
    """
    instructions = random.integers(WRITE, READ + 1, (count, length // 2), dtype=np.uint8)
    instructions[random.random(instructions.shape) < p] = IGNORE
    instructions[:, 0], instructions[:, -1] = WRITE, READ
    bits = random.integers(0, 2, instructions.shape, dtype=np.uint8)
    written = np.maximum.accumulate(np.where(instructions == WRITE, np.arange(length // 2), 0), axis=1)
    reads = instructions == READ
    bits = np.where(reads, np.take_along_axis(bits, written, axis=1), bits)
    inputs = np.stack([instructions, ZERO + bits], -1).reshape(count, length)
    targets = np.full((count, length), IGNORE_INDEX, np.int8)
    targets[:, ::2][reads] = ZERO + bits[reads]
    return inputs, targets
