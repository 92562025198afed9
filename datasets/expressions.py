"""Random nested expressions of operators on lists of digits, drawn level by level, many at once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

OPERATORS = ("MIN", "MAX", "MED", "SM")
CLOSING = 10 + len(OPERATORS)
PADDING = CLOSING + 1
"""Tokens: the digits 0 to 9, an opening bracket with each operator from 10 on, the closing bracket, and padding."""

DEPTH = 10
"""Depth of the deepest digits; the root has depth 1."""

DIGIT = 0.75
"""Probability that a node above that depth is a digit."""

FEWEST, MOST = 2, 10
"""Smallest and largest number of an operator's arguments, which is uniform."""


class Expressions(NamedTuple):
    """Expressions, one after the other.

    Attributes:
        symbols: (N,) uint8 tokens of all of them.
        ends: (n,) int64, where each ends.
        values: (n,) int64, the value of each.
    """

    symbols: np.ndarray
    ends: np.ndarray
    values: np.ndarray


@dataclass
class Level:
    """The nodes of one depth in the order of their operators, the arguments of an operator next to each other.

    Attributes:
        tree: (n,) number of each node's tree.
        parent: (n,) place of each node's operator in the level above; any number for roots.
        arity: (n,) number of arguments; 0 for a digit.
        span: (n,) symbols of each node with all below it; 0 where they are not known yet.
    """

    tree: np.ndarray
    parent: np.ndarray
    arity: np.ndarray
    span: np.ndarray

    def select(self, kept: np.ndarray) -> "Level":
        """Return some of the nodes."""
        return Level(self.tree[kept], self.parent[kept], self.arity[kept], self.span[kept])


def draw_expressions(random: np.random.Generator, count: int, shortest: int, longest: int) -> Expressions:
    """Draw trees whose roots are operators, and return the expressions of those that have some numbers of symbols.

    Args:
        random: source of all random numbers.
        count: trees that are drawn.
        shortest: symbols, operators and closing brackets included.
        longest: symbols.
    """
    levels, sizes = _shapes(random, count, longest)
    levels = _of_trees(levels, (shortest <= sizes) & (sizes <= longest))
    return filled(random, _with_spans(levels))


def count_trees(shortest: int, longest: int) -> int:
    """Return the number of different trees of ``shortest`` to ``longest`` symbols whose roots are operators."""
    numbers = [0, 10] + [0] * (longest - 1)  # of digits, and then of all trees from a depth on, by their symbols
    operators = [0] * (longest + 1)
    for _ in range(1, DEPTH):
        lists, operators = [1] + [0] * longest, [0] * (longest + 1)
        for arguments in range(1, MOST + 1):
            lists = [sum(lists[k] * numbers[n - k] for k in range(n + 1)) for n in range(longest + 1)]
            if arguments >= FEWEST:
                operators = [0, 0] + [a + b for a, b in zip(operators[2:], lists, strict=False)]
        operators = [len(OPERATORS) * each for each in operators]
        numbers = [n + (10 if symbols == 1 else 0) for symbols, n in enumerate(operators)]
    return sum(operators[shortest:])


def _shapes(random: np.random.Generator, count: int, longest: int) -> tuple[list[Level], np.ndarray]:
    """Draw the shapes of trees, and return their levels and numbers of symbols; trees that are too long are not completed."""
    arity = random.integers(FEWEST, MOST + 1, count)
    levels = [Level(np.arange(count), np.zeros(count, np.int64), arity, np.zeros(count, np.int64))]
    sizes = np.full(count, 2)
    for depth in range(2, DEPTH + 1):
        above = levels[-1]
        parent = np.repeat(np.arange(len(above.arity)), above.arity)
        tree, arity = above.tree[parent], np.zeros(len(parent), np.int64)
        if depth < DEPTH:
            operators = np.flatnonzero(random.random(len(parent)) >= DIGIT)
            arity[operators] = random.integers(FEWEST, MOST + 1, len(operators))
        sizes = sizes + np.bincount(tree, minlength=count) + np.bincount(tree[arity > 0], minlength=count)
        level = Level(tree, parent, arity, np.zeros(len(parent), np.int64))
        levels.append(level.select(sizes[tree] <= longest))
    return levels, sizes


def _of_trees(levels: Sequence[Level], kept: np.ndarray) -> list[Level]:
    """Return the levels of some of the trees (n,) bool, which are numbered again."""
    found: list[Level] = []
    places = np.zeros(0, np.int64)
    for level in levels:
        mask = kept[level.tree]
        chosen = level.select(mask)
        parent = places[chosen.parent] if found else chosen.parent
        found.append(replace(chosen, tree=(np.cumsum(kept) - 1)[chosen.tree], parent=parent))
        places = np.cumsum(mask) - 1
    return found


def _with_spans(levels: Sequence[Level]) -> list[Level]:
    found = [replace(levels[-1], span=np.ones(len(levels[-1].arity), np.int64))]
    for level in levels[-2::-1]:
        below = found[0]
        inner = np.bincount(below.parent, weights=below.span, minlength=len(level.arity)).astype(np.int64)
        found.insert(0, replace(level, span=np.where(level.arity > 0, 2 + inner, 1)))
    return found


def filled(random: np.random.Generator, levels: Sequence[Level]) -> Expressions:
    """Draw digits and operators, write the expressions, and compute their values."""
    contents = [random.integers(0, np.where(level.arity > 0, len(OPERATORS), 10)) for level in levels]
    ends = np.cumsum(levels[0].span)
    symbols = np.empty(ends[-1] if len(ends) else 0, np.uint8)
    starts = ends - levels[0].span
    for depth, (level, content) in enumerate(zip(levels, contents, strict=True)):
        if depth:
            above = levels[depth - 1]
            before = np.cumsum(level.span) - level.span
            first = (np.cumsum(above.arity) - above.arity)[level.parent]
            starts = starts[level.parent] + 1 + before - before[first]
        is_operator = level.arity > 0
        symbols[starts] = np.where(is_operator, 10 + content, content)
        symbols[(starts + level.span - 1)[is_operator]] = CLOSING
    values = contents[-1]
    for level, content in zip(levels[-2::-1], contents[-2::-1], strict=True):
        is_operator = level.arity > 0
        content[is_operator] = _values(values, level.arity[is_operator], content[is_operator])
        values = content
    return Expressions(symbols, ends, values)


def _values(arguments: np.ndarray, arity: np.ndarray, operators: np.ndarray) -> np.ndarray:
    """Return the values of operators.

    Args:
        arguments: (N,) values of all arguments, those of an operator next to each other.
        arity: (n,) number of each operator's arguments.
        operators: (n,) their numbers in ``OPERATORS``.
    """
    if not len(arity):
        return np.zeros(0, np.int64)
    first = np.cumsum(arity) - arity
    minimum, maximum, total = (each.reduceat(arguments, first) for each in (np.minimum, np.maximum, np.add))
    values = np.choose(operators, [minimum, maximum, 0, total % 10])
    is_median = operators == OPERATORS.index("MED")
    values[is_median] = _medians(arguments[np.repeat(is_median, arity)], arity[is_median])
    return values


def _medians(arguments: np.ndarray, arity: np.ndarray) -> np.ndarray:
    """Return the integer part of the median of each list of arguments, of which ``arity`` are next to each other."""
    keys = 10 * np.repeat(np.arange(len(arity)), arity) + arguments  # lists stay in order, and each is sorted
    keys.sort()
    first = np.cumsum(arity) - arity
    return (keys[first + (arity - 1) // 2] % 10 + keys[first + arity // 2] % 10) // 2
