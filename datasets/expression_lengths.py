"""Random nested expressions of given lengths, also of rare ones: the sizes of all nodes are drawn before their shapes."""

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from seqmem.datasets.expressions import DEPTH, DIGIT, FEWEST, MOST, Expressions, Level, filled

_MOST_WEIGHTS = 2**21
"""Numbers in a block of weights, at most; one row may have more."""


class ExpressionLengths:
    """Probabilities of the numbers of symbols of :func:`seqmem.datasets.expressions.draw_expressions`, and draws by them.

    The number of symbols of k nodes of one depth has the k-fold convolution of that of one node. An operator with k arguments
    has two symbols more, so that the numbers at a depth follow from those below it. Given its number of symbols, a tree is
    drawn from the root on: the number of arguments, and then the symbols of each argument in turn, by Bayes' theorem. Nothing
    is drawn in vain, and the distribution is the same as that of rejected draws.
    """

    def __init__(self, longest: int):
        """Compute the probabilities of up to ``longest`` symbols."""
        self._nodes = {DEPTH: np.eye(1, longest + 1, 1)[0]}
        self._lists: dict[int, np.ndarray] = {}
        for depth in range(DEPTH - 1, 0, -1):
            lists = [np.eye(1, longest + 1)[0]]
            for _ in range(MOST):
                lists.append(np.convolve(lists[-1], self._nodes[depth + 1])[: longest + 1])
            self._lists[depth] = np.stack(lists)
            self._operators = np.zeros(longest + 1)
            self._operators[2:] = self._lists[depth][FEWEST:].mean(0)[:-2]
            self._nodes[depth] = (1 - DIGIT) * self._operators
            self._nodes[depth][1] = DIGIT

    def share(self, shortest: int, longest: int) -> float:
        """Return the probability that a tree whose root is an operator has ``shortest`` to ``longest`` symbols."""
        return float(self._operators[shortest : longest + 1].sum())

    def draw(self, random: np.random.Generator, count: int, shortest: int, longest: int) -> Expressions:
        """Draw expressions of ``shortest`` to ``longest`` symbols.

        Args:
            random: source of all random numbers.
            count: number of expressions.
            shortest: symbols, operators and closing brackets included.
            longest: symbols, at most as many as the constructor's.
        """
        span = shortest + _chosen(random, self._operators[None, shortest : longest + 1], np.zeros(count, np.int64))
        parent, levels = np.zeros(count, np.int64), list[Level]()
        for depth in range(1, DEPTH + 1):
            operators = np.flatnonzero(span > 1)
            arity = np.zeros(len(span), np.int64)
            if len(operators):
                weights = self._lists[depth][FEWEST:, span[operators] - 2].T
                arity[operators] = FEWEST + _chosen(random, weights, np.arange(len(operators)))
            levels.append(Level(np.zeros_like(parent), parent, arity, span))
            parent = np.repeat(np.arange(len(arity)), arity)
            span = self._arguments(random, depth, arity[operators], span[operators] - 2)
        return filled(random, levels)

    def _arguments(self, random: np.random.Generator, depth: int, arity: np.ndarray, inner: np.ndarray) -> np.ndarray:
        """Draw the symbols of the arguments of operators (n,), which have ``inner`` together: all first ones, all second ..."""
        found = np.empty(arity.sum(), np.int64)
        place, number = np.cumsum(arity) - arity, arity
        while len(place):
            size = self._first(random, depth, number, inner)
            found[place] = size
            more = number > 1
            place, number, inner = place[more] + 1, number[more] - 1, (inner - size)[more]
        return found

    def _first(self, random: np.random.Generator, depth: int, number: np.ndarray, inner: np.ndarray) -> np.ndarray:
        """Draw the symbols of the first of each ``number`` of arguments, which have ``inner`` together."""
        node, lists = self._nodes[depth + 1], self._lists[depth]
        size = np.where(number == 1, inner, 1)
        is_digit = node[1] * lists[number - 1, inner - 1] / lists[number, inner]
        others = np.flatnonzero((number > 1) & (random.random(len(inner)) >= is_digit))
        others = others[np.lexsort((inner[others], number[others]))]
        for arguments in range(2, MOST + 1):
            for part in _blocks(others[number[others] == arguments], inner):
                size[part] = _operators(random, node, lists[arguments - 1], inner[part])
        return size


def _operators(random: np.random.Generator, node: np.ndarray, others: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Draw the symbols k > 1 of an argument with probabilities in proportion to node[k] others[inner - k]."""
    values, rows = np.unique(inner, return_inverse=True)
    width = int(min(values[-1], node.nonzero()[0][-1])) + 1
    backwards = np.concatenate([others[values[-1] :: -1], np.zeros(width)])
    weights = sliding_window_view(backwards, width)[values[-1] - values][:, 2:] * node[2:width]
    return 2 + _chosen(random, weights, rows)


def _chosen(random: np.random.Generator, weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Draw a column for each of ``rows`` (n,) of weights (R, K), with probabilities in proportion to them."""
    sums = weights.cumsum(1)
    drawn = random.random(len(rows)) * sums[rows, -1]
    first, last = np.zeros(len(rows), np.int64), np.full(len(rows), weights.shape[1] - 1)
    while (first < last).any():
        middle = (first + last) // 2
        is_after = sums[rows, middle] <= drawn
        first, last = np.where(is_after, middle + 1, first), np.where(is_after, last, middle)
    return first


def _blocks(places: np.ndarray, inner: np.ndarray) -> Iterator[np.ndarray]:
    """Yield places, in ascending order of ``inner``, in blocks whose different values need few weights."""
    bounds = [*np.flatnonzero(np.diff(inner[places], prepend=-1)), len(places)]
    start = 0
    for end in range(1, len(bounds)):
        if end + 1 == len(bounds) or (end + 1 - start) * inner[places[bounds[end]]] > _MOST_WEIGHTS:
            yield places[bounds[start] : bounds[end]]
            start = end
