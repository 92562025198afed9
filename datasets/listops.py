"""ListOps: the value of a nested expression of operators on lists of digits."""

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from seqmem.arguments import checked
from seqmem.data import Batch, DataSet, DataSpec, Provenance, Seed, Split, generator, sha256
from seqmem.datasets.expression_lengths import ExpressionLengths
from seqmem.datasets.expressions import PADDING, Expressions, count_trees, draw_expressions
from seqmem.errors import UserError

SHORTEST = 4
"""Symbols of the shortest expression: an operator, two digits and a closing bracket."""

LONGEST = 10_000
"""Symbols of the longest expression; the probabilities of all lengths up to this are computed in seconds."""

AT_ONCE = 1024
"""Trees that are drawn together."""

RARE = 0.05
"""Share of trees with a length in the range below which expressions are drawn by their length; above, others are rejected."""

FEW_SYMBOLS = 12
"""Length of which there are more different expressions than any data set has."""


class ListOps(DataSet):
    """Nested expressions such as ``[MAX 2 9 [MIN 4 7 ] 0 ]``; the target is the value, one of ten classes.

    Inputs are tokens (B, T) with lengths (B,): the digits 0 to 9, the operators 10 to 13 (MIN, MAX, MED and SM, each with its
    opening bracket), the closing bracket 14, and 15 for padding up to the longest expression of the batch. Targets are (B,).

    A node is a digit with probability 3/4, and always at depth 10 (the root has depth 1); else an operator with 2 to 10 nodes
    as arguments, operator and number uniform. MED is the integer part of the median, of an even number the mean of the middle
    two; SM is the sum modulo 10. Expressions are kept if their symbols, brackets included, are ``min_length`` to ``length``,
    and if they are not in the data yet.

    Source: Tay et al., "Long Range Arena" (2021), after Nangia and Bowman, "ListOps" (2018). The sample of the original's code
    depends on the order of a set; this is a different sample of the same distribution.
    """

    name = "listops"
    separate_test = True

    @checked
    def __init__(
        self,
        length: Annotated[int, Field(ge=SHORTEST, le=LONGEST)] = 1999,
        min_length: Annotated[int, Field(ge=SHORTEST)] = 501,
        train_samples: PositiveInt = 96_000,
        validation_samples: PositiveInt = 2_000,
        test_samples: PositiveInt = 2_000,
        seed: Seed = 0,
        num_workers: NonNegativeInt = 0,
    ):
        """Draw the expressions, about ten seconds at the default sizes.

        Args:
            length: symbols of the longest expression; the original's are below 2000.
            min_length: symbols of the shortest one; the original's are above 500.
            train_samples: expressions for training.
            validation_samples: expressions for validation.
            test_samples: expressions for test.
            seed: seed of all three splits.
            num_workers: worker processes that make batches; 0 makes them in the main process.

        Raises:
            UserError: ``min_length`` is more than ``length``, or there are fewer such expressions.
        """
        if min_length > length:
            raise UserError(f"dataset.min_length: got {min_length}, expected at most dataset.length={length}")
        sizes: dict[Split, int] = {"train": train_samples, "validation": validation_samples, "test": test_samples}
        _refuse_too_few(sum(sizes.values()), min_length, length)
        self._symbols: dict[Split, np.ndarray] = {}
        self._ends: dict[Split, np.ndarray] = {}
        self._values: dict[Split, Tensor] = {}
        sums: dict[Split, str] = {}
        seen: set[bytes] = set()
        lengths = ExpressionLengths(length)
        draw = draw_expressions if lengths.share(min_length, length) >= RARE else lengths.draw
        for split in ("test", "validation", "train"):  # the test does not depend on the sizes of the others
            random = generator(seed, self.name, split)
            symbols, values = zip(
                *_different(partial(draw, random, AT_ONCE, min_length, length), sizes[split], seen), strict=True
            )
            self._symbols[split], self._ends[split] = np.concatenate(symbols), np.cumsum([len(each) for each in symbols])
            self._values[split] = torch.tensor(values)
            sums[split] = sha256(self._symbols[split], self._ends[split])
        spec = DataSpec(self.name, PADDING + 1, 10, "classification", output_steps=0, max_length=length, tokens=True)
        super().__init__(spec, sizes, Provenance(seed, sums), num_workers)

    def batch(self, split: Split, indices: Tensor) -> Batch:
        """Return inputs (B, T) int64 tokens, targets (B,) int64 and lengths (B,) int64."""
        ends = self._ends[split]
        last = ends[indices]
        lengths = last - np.where(indices > 0, ends[indices - 1], 0)
        steps = np.arange(lengths.max())
        places = (last - lengths)[:, None] + np.minimum(steps, lengths[:, None] - 1)
        tokens = np.where(steps < lengths[:, None], self._symbols[split][places], PADDING)
        return Batch(torch.from_numpy(tokens).long(), self._values[split][indices], lengths=torch.from_numpy(lengths))


def _different(draw: Callable[[], Expressions], count: int, seen: set[bytes]) -> Iterator[tuple[np.ndarray, int]]:
    """Yield symbols and value of ``count`` expressions that are not among those seen, to which they are added."""
    yielded = 0
    while yielded < count:
        symbols, ends, values = draw()
        for tree, value in zip(np.split(symbols, ends[:-1]), values.tolist(), strict=False):
            key = hashlib.blake2b(tree.tobytes(), digest_size=16).digest()
            if key not in seen and yielded < count:
                seen.add(key)
                yielded += 1
                yield tree, value


def _refuse_too_few(samples: int, shortest: int, longest: int) -> None:
    """Refuse more expressions than half of the different ones, of which the last would hardly be found.

    Raises:
        UserError: with both numbers.
    """
    if longest >= FEW_SYMBOLS:
        return
    there_are = count_trees(shortest, longest)
    if samples > there_are // 2:
        raise UserError(
            f"dataset.length: got {longest} for {samples} different expressions in all splits, expected at most "
            f"{there_are // 2}, half of those of {shortest} to {longest} symbols; choose a larger length or fewer samples"
        )
