"""Word problems of finite groups: the product of a sequence of elements, at every step."""

import math
from itertools import count, permutations, takewhile
from typing import Literal

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from seqmem.arguments import checked
from seqmem.data import SPLITS, DataSpec, GeneratedDataSet, Seed, Shuffle, Split, generator, mixed_lengths
from seqmem.errors import UserError

ORDER_SEED = 0
"""Seed of the order of all words, on which no argument has an influence."""

Group = Literal["S5", "A5", "A4xZ5", "Z60", "S3", "Z2"]


class GroupWords(GeneratedDataSet):
    """Words of elements of a group; the target at each step is the product of the elements so far, x_1 x_2 ... x_t.

    Elements are tokens and classes. Those of S3, S5 and A5 are permutations in lexicographic order, the identity first, with
    (p q)[i] = p[q[i]]; A5 has the even ones. Z2 and Z60 are numbers under addition. Element 5 a + b of A4xZ5 is the pair of a
    in A4 and b in Z5. A5 is the smallest group that is not solvable, and S5 contains it.

    Inputs and targets are (B, T). Training has the lengths from ``min_length`` to ``length``, one a batch; validation and test
    have ``length`` alone. Elements are uniform. Of the words of each length, an eighth are for the test, an eighth for
    validation, and the others for training, whatever the seed and the sizes: a test at any length has no word of a training.
    Of long words, those with equal first elements, as many as a 64-bit number has, belong together. No word is twice in a fixed
    split; words that are drawn anew may repeat. The metrics are the accuracy of a step and ``sequence_accuracy``, that of
    whole words.

    Source: Merrill et al. (2024), The Illusion of State in State-Space Models.
    """

    name = "group_words"

    @checked
    def __init__(
        self,
        group: Group = "A5",
        length: PositiveInt = 20,
        min_length: PositiveInt = 2,
        fresh: bool = True,
        train_samples: PositiveInt = 25_600,
        validation_samples: PositiveInt = 1_000,
        test_samples: PositiveInt = 2_000,
        seed: Seed = 0,
        num_workers: NonNegativeInt = 0,
    ):
        """Store the sizes; words are drawn when they are needed.

        Args:
            group: S5 (120 elements), A5 (60), A4xZ5 (60), Z60, S3 (6) or Z2.
            length: T, elements of a word for validation and test, and of the longest one for training.
            min_length: T of the shortest word for training; all lengths between are equally likely, one a batch.
            fresh: draw training words anew in each epoch, from the trial's seed.
            train_samples: words for training, or those that count as an epoch if ``fresh``.
            validation_samples: words for validation.
            test_samples: words for test.
            seed: seed of the splits that are not drawn anew.
            num_workers: worker processes that make batches; 0 makes them in the main process.

        Raises:
            UserError: ``min_length`` is more than ``length``, or a split has more words of a length than there are for it.
        """
        self._group, self._products = group, product_table(group)
        self._order = len(self._products)
        spec = DataSpec(
            self.name, self._order, self._order, "classification", output_steps=None, max_length=length, tokens=True
        )
        super().__init__(
            spec,
            {"train": train_samples, "validation": validation_samples, "test": test_samples},
            {"train": mixed_lengths(min_length, length), "validation": (length,), "test": (length,)},
            seed=seed,
            fresh=fresh,
            num_workers=num_workers,
        )
        for split in reversed(SPLITS):
            for each in self.lengths[split]:
                self._check_number(split, each)

    def draw(self, random: np.random.Generator, count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return training words (count, length), each as likely as any other, and their products."""
        start, end = _places("train", self._heads(length))
        return self._words(random, random.integers(start, end, count), length)

    def draw_fixed(self, split: Split, first: int, count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return words of a fixed split and their products; those of "train" may repeat with ``fresh``."""
        if split == "train" and self.fresh:
            return super().draw_fixed(split, first, count, length)
        start, end = _places(split, self._heads(length))
        places = start + Shuffle(end - start, self.seed, self.name, split, length)(np.arange(first, first + count))
        return self._words(generator(self.seed, self.name, split, length, first), places, length)

    def _head(self, length: int) -> int:
        """Return the number of the first elements of a word that make it different from others: those of a 64-bit number."""
        return min(length, int(62 / math.log2(self._order)))

    def _heads(self, length: int) -> int:
        """Return how many different first elements words of a length have."""
        return int(self._order ** self._head(length))

    def _words(self, random: np.random.Generator, places: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return words by the places of their heads in the order of all, with random further elements, and their products."""
        head = self._head(length)
        numbers = Shuffle(self._heads(length), ORDER_SEED, self.name, self._group, length)(places)
        first = numbers[:, None] // self._order ** np.arange(head)[::-1] % self._order
        rest = random.integers(0, self._order, (len(places), length - head), dtype=np.uint8)
        words = np.concatenate([first.astype(np.uint8), rest], 1)
        return words, products(words, self._products)

    def _check_number(self, split: Split, length: int) -> None:
        """Refuse more words of a split and a length than there are for it.

        Raises:
            UserError: with both numbers.
        """
        needed = 1 if split == "train" and self.fresh else self.count_of(split, length)
        there_are = self._words_for(split, length)
        if needed > there_are:
            key = "length" if length == self.spec.max_length else "min_length"
            longer = takewhile(lambda each: self._head(each) == each, count(length))
            enough = next((each for each in longer if self._words_for(split, each) >= needed), None)
            fewer = f"{split}_samples of at most {there_are * len(self.lengths[split])}" if there_are else ""
            expected = " or ".join(part for part in (f"at least {enough}" if enough else "", fewer) if part)
            raise UserError(
                f"dataset.{key}: got {length}, but {there_are} of {self._order**length} words of {self._group} are for the "
                f"{split} split, and it has {needed} different ones; expected {expected}"
            )

    def _words_for(self, split: Split, length: int) -> int:
        start, end = _places(split, self._heads(length))
        return end - start


def _places(split: Split, words: int) -> tuple[int, int]:
    """Return the places, from the first up to the last and without it, that belong to a split in the order of all words."""
    return {"test": (0, words // 8), "validation": (words // 8, words // 4), "train": (words // 4, words)}[split]


def product_table(group: Group) -> np.ndarray:
    """Return the products of a group: (n, n) uint8, the number of p q in row p and column q."""
    match group:
        case "A4xZ5":
            pairs = 5 * _permutations(4, even=True)[:, None, :, None] + _cyclic(5)[None, :, None, :]
            return pairs.reshape(60, 60).astype(np.uint8)
        case "Z2" | "Z60":
            return _cyclic(int(group[1:])).astype(np.uint8)
        case _:
            return _permutations(int(group[1:]), even=group[0] == "A").astype(np.uint8)


def products(words: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return the product of the first t elements at each step t of words (B, T), by a table of :func:`product_table`."""
    found, distance = words.copy(), 1
    # After each pass, step t has the product of the latest 2, 4, 8 ... elements.
    while distance < found.shape[1]:
        found[:, distance:] = table[found[:, :-distance], found[:, distance:]]
        distance *= 2
    return found


def _permutations(degree: int, even: bool) -> np.ndarray:
    """Return the products of the permutations of 0 to ``degree - 1``, or of the even ones, in lexicographic order."""
    elements = np.array(list(permutations(range(degree))))
    if even:
        inversions = np.triu(elements[:, :, None] > elements[:, None, :]).sum((1, 2))
        elements = elements[inversions % 2 == 0]
    places = degree ** np.arange(degree)[::-1]
    return np.searchsorted(elements @ places, elements[:, elements] @ places)


def _cyclic(order: int) -> np.ndarray:
    return np.add.outer(np.arange(order), np.arange(order)) % order
