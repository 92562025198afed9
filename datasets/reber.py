"""Embedded Reber grammar: classify strings of letters as inside or outside of the grammar."""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from seqmem.arguments import checked
from seqmem.data import Batch, DataSet, DataSpec, Provenance, Seed, Split, generator, sha256
from seqmem.errors import UserError

LETTERS = "BEPSTVX"

GRAPH = {
    0: {"B": 1},
    1: {"T": 2, "P": 3},
    2: {"S": 2, "X": 4},
    3: {"T": 3, "V": 5},
    4: {"X": 3, "S": 6},
    5: {"P": 4, "V": 6},
    6: {"E": 7},
}
"""The Reber grammar (Reber, 1967): for each state, the next state by letter; 7 is the end."""

END = len(GRAPH)
SHORTEST = 9
"""Letters of the shortest string of the embedded grammar."""

# The graph as an array: the next state by state and letter, -1 for none.
_NEXT = np.full((END + 1, len(LETTERS)), -1)
for _state, _edges in GRAPH.items():
    for _letter, _next in _edges.items():
        _NEXT[_state, LETTERS.index(_letter)] = _next


class Reber(DataSet):
    """Strings of letters, half of them in the embedded Reber grammar (class 1), half not (class 0).

    A step is one of the letters B, E, P, S, T, V, X. Inputs are tokens (B, T), padded with 0, with lengths (B,); targets are
    (B,).

    The grammar (Hochreiter and Schmidhuber, 1997): B, then T or P, then a string of the Reber grammar, then the same T or P,
    then E. A string of class 1 is a random walk through the graph that takes both edges of a state with equal probability,
    given the length, which is uniform. A string of class 0 is the beginning of one such string and the rest of another of equal
    length, cut such that the whole is not in the grammar. There are few short strings, so some may be in several splits.
    """

    name = "reber"
    separate_test = True

    @checked
    def __init__(
        self,
        length: Annotated[int, Field(ge=SHORTEST)] = 60,
        shortest: Annotated[int, Field(ge=SHORTEST)] = 30,
        train_samples: PositiveInt = 49_500,
        validation_samples: PositiveInt = 5_500,
        test_samples: PositiveInt = 5_000,
        seed: Seed = 0,
        num_workers: NonNegativeInt = 0,
    ):
        """Draw the strings.

        Args:
            length: letters of the longest string.
            shortest: letters of the shortest string.
            train_samples: sequences for training.
            validation_samples: sequences for validation.
            test_samples: sequences for test.
            seed: seed of all three splits, which are drawn independently.
            num_workers: worker processes that make batches; 0 makes them in the main process.

        Raises:
            UserError: ``shortest`` is more than ``length``.
        """
        if shortest > length:
            raise UserError(f"dataset.shortest: got {shortest}, expected at most dataset.length={length}")
        self._strings: dict[Split, Tensor] = {}
        self._lengths: dict[Split, Tensor] = {}
        self._valid: dict[Split, Tensor] = {}
        sums: dict[Split, str] = {}
        sizes: dict[Split, int] = {"train": train_samples, "validation": validation_samples, "test": test_samples}
        for split, size in sizes.items():
            random = generator(seed, self.name, split)
            lengths = random.integers(shortest, length + 1, size)
            valid = random.permuted(np.arange(size) % 2 == 1)
            strings = np.zeros((size, length), np.int8)
            strings[valid] = draw_strings(random, lengths[valid], length)
            strings[~valid] = splice_strings(random, lengths[~valid], length)
            self._strings[split], self._lengths[split] = torch.from_numpy(strings), torch.from_numpy(lengths)
            self._valid[split] = torch.from_numpy(valid.astype(np.int64))
            sums[split] = sha256(strings, lengths, valid)
        spec = DataSpec(
            self.name,
            len(LETTERS),
            2,
            "classification",
            output_steps=0,
            max_length=length,
            tokens=True,
            class_names=("not in the grammar", "in the grammar"),
        )
        super().__init__(spec, sizes, Provenance(seed, sums), num_workers)

    @classmethod
    def at_length(cls, arguments: Mapping[str, Any], length: int) -> dict[str, Any]:
        """Return the arguments of strings of one length."""
        return {**arguments, "length": length, "shortest": length}

    def batch(self, split: Split, indices: Tensor) -> Batch:
        """Return inputs (B, T) int64 tokens, targets (B,) int64 and lengths (B,) int64."""
        return Batch(self._strings[split][indices].long(), self._valid[split][indices], lengths=self._lengths[split][indices])


def draw_strings(random: np.random.Generator, lengths: np.ndarray, longest: int) -> np.ndarray:
    """Draw strings of the embedded grammar.

    Args:
        random: random numbers.
        lengths: (n,) letters of each string, at least 9.
        longest: letters of the longest string.

    Returns:
        (n, longest) int8 tokens, padded with 0.
    """
    rows = np.arange(len(lengths))
    strings = np.zeros((len(lengths), longest), np.int8)
    frame = random.choice([LETTERS.index("T"), LETTERS.index("P")], len(lengths))
    strings[:, 0], strings[:, 1] = LETTERS.index("B"), frame
    strings[rows, lengths - 2], strings[rows, lengths - 1] = frame, LETTERS.index("E")
    ends = _end_probabilities(longest - 4)
    states, left = np.zeros(len(lengths), np.int64), lengths - 4
    for place in range(2, longest - 2):
        [walking] = (left > 0).nonzero()
        following = _NEXT[states[walking]]
        chances = (following >= 0) * ends[left[walking] - 1][np.arange(len(walking))[:, None], following]
        bounds = chances.cumsum(1)
        chosen = (random.random((len(walking), 1)) * bounds[:, -1:] >= bounds).sum(1)
        strings[walking, place] = chosen
        states[walking] = following[np.arange(len(walking)), chosen]
        left -= 1
    return strings


def splice_strings(random: np.random.Generator, lengths: np.ndarray, longest: int) -> np.ndarray:
    """Draw strings outside the embedded grammar, each spliced from two strings of it; arguments of :func:`draw_strings`."""
    strings = np.zeros((len(lengths), longest), np.int8)
    todo = np.arange(len(lengths))
    while len(todo):
        first, second = (draw_strings(random, lengths[todo], longest) for _ in range(2))
        cut = random.integers(1, lengths[todo])
        strings[todo] = np.where(np.arange(longest) < cut[:, None], first, second)
        todo = todo[is_valid(strings[todo], lengths[todo])]
    return strings


def is_valid(strings: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return (n,) bool: which strings, in the form of :func:`draw_strings`, are in the embedded grammar."""
    rows = np.arange(len(lengths))
    letters = {letter: number for number, letter in enumerate(LETTERS)}
    valid = (strings[:, 0] == letters["B"]) & (strings[rows, lengths - 1] == letters["E"])
    valid &= np.isin(strings[:, 1], [letters["T"], letters["P"]]) & (strings[rows, lengths - 2] == strings[:, 1])
    states = np.zeros(len(lengths), np.int64)
    for place in range(2, strings.shape[1] - 2):
        inner = place < lengths - 2
        following = np.where(states >= 0, _NEXT[states, strings[:, place]], -1)
        states = np.where(inner, following, states)
    return valid & (states == END)


def _end_probabilities(longest: int) -> np.ndarray:
    """Row k: the probabilities that walks from each state end after k letters, up to a factor; (longest + 1, states)."""
    chances = np.zeros((longest + 1, END + 1))
    chances[0, END] = 1
    edges = (_NEXT >= 0) / np.maximum((_NEXT >= 0).sum(1, keepdims=True), 1)
    for k in range(1, longest + 1):
        chances[k] = (edges * chances[k - 1][_NEXT]).sum(1)
        # They fall by a factor with every letter and would underflow.
        chances[k] /= chances[k].max()
    return chances
