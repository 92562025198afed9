"""Word problems of finite groups: the product of a sequence of elements, at every step."""

import math
from itertools import permutations
from typing import Literal

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from seqmem.arguments import checked
from seqmem.data import DataSpec, GeneratedDataSet, Seed, Split, generator, mixed_lengths
from seqmem.errors import UserError

Group = Literal["S5", "A5", "A4xZ5", "Z60", "S3", "Z2"]


class GroupWords(GeneratedDataSet):
    """Words of elements of a group; the target at each step is the product of the elements so far, x_1 x_2 ... x_t.

    Elements are tokens and classes. Those of S3, S5 and A5 are permutations in lexicographic order, the identity first, with
    (p q)[i] = p[q[i]]; A5 has the even ones. Z2 and Z60 are numbers under addition. Element 5 a + b of A4xZ5 is the pair of a
    in A4 and b in Z5. A5 is the smallest group that is not solvable, and S5 contains it.

    Inputs and targets are (B, T). Training has the lengths from ``min_length`` to ``length``, one a batch; validation and test
    have ``length`` alone. Elements are uniform. No word is twice in the fixed splits of a length, and training words of any
    kind are those that neither validation nor test has. Words that are drawn anew may repeat. The metrics are the accuracy of
    a step and ``sequence_accuracy``, that of whole words.

    Source: Merrill et al. (2024), The Illusion of State in State-Space Models.
    """

    name = "group_words"
    separate_test = False

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
            UserError: ``min_length`` is more than ``length``, or more different words of a length than there are.
        """
        self._group, self._products = group, product_table(group)
        self._order = len(self._products)
        self._numbers: dict[int, np.ndarray] = {}
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
        for each in self.lengths["train"]:
            self._check_number(each)

    def draw(self, random: np.random.Generator, count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return elements (count, length), of words that neither validation nor test has, and their products."""
        held_out = np.sort(self._distinct(length)[: self._held_out(length)])
        numbers = random.integers(0, self._order ** self._head(length) - len(held_out), count)
        # The number of a rank among those that are not held out: each smaller one that is shifts it by one.
        numbers += np.searchsorted(held_out - np.arange(len(held_out)), numbers, side="right")
        return self._words(random, numbers, length)

    def draw_fixed(self, split: Split, first: int, count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return words of a fixed split and their products; those of "train" may repeat with ``fresh``."""
        if split == "train" and self.fresh:
            return super().draw_fixed(split, first, count, length)
        begin = {"test": 0, "validation": self.count_of("test", length), "train": self._held_out(length)}[split] + first
        random = generator(self.seed, self.name, split, length, first)
        return self._words(random, self._distinct(length)[begin : begin + count], length)

    def _head(self, length: int) -> int:
        """Return the number of the first elements of a word that make it different from others: those of a 64-bit number."""
        return min(length, int(62 / math.log2(self._order)))

    def _held_out(self, length: int) -> int:
        return self.count_of("test", length) + self.count_of("validation", length)

    def _distinct(self, length: int) -> np.ndarray:
        """Return different numbers of heads: those of the test, of validation, and of training if it is fixed."""
        if length not in self._numbers:
            count = self._held_out(length) + (0 if self.fresh else self.count_of("train", length))
            random = generator(self.seed, self.name, "heads", length)
            self._numbers[length] = random.choice(self._order ** self._head(length), count, replace=False)
        return self._numbers[length]

    def _words(self, random: np.random.Generator, numbers: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the words whose heads have given numbers, with random elements after them, and their products."""
        head = self._head(length)
        first = numbers[:, None] // self._order ** np.arange(head)[::-1] % self._order
        rest = random.integers(0, self._order, (len(numbers), length - head), dtype=np.uint8)
        words = np.concatenate([first.astype(np.uint8), rest], 1)
        return words, products(words, self._products)

    def _check_number(self, length: int) -> None:
        """Refuse more different words of a length than there are.

        Raises:
            UserError: with both numbers.
        """
        there_are = self._order**length
        needed = self._held_out(length) + (1 if self.fresh else self.count_of("train", length))
        if needed > there_are:
            key = "length" if length == self.spec.max_length else "min_length"
            raise UserError(
                f"dataset.{key}: got {length}, of which there are {there_are} words of {self._group}, but all splits have "
                f"{needed} different ones; expected at least {_enough(self._order, needed)}, or fewer samples"
            )


def _enough(order: int, words: int) -> int:
    """Return the smallest length of which there are so many words."""
    length = 1
    while order**length < words:
        length += 1
    return length


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
