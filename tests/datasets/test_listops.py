"""ListOps: expressions are read and evaluated by other code, and counted against a recursive generator."""

from collections import Counter
from functools import cache
from itertools import product
from random import Random
from statistics import median

import numpy as np
import pytest
import torch

from seqmem import datasets
from seqmem.datasets import expression_lengths, expressions
from seqmem.errors import UserError

from .counts import assert_frequencies

OPERATORS = {10: min, 11: max, 12: lambda values: int(median(values)), 13: lambda values: sum(values) % 10}
CLOSING, PADDING = 14, 15


def load(**arguments):
    small = {"train_samples": 300, "validation_samples": 100, "test_samples": 100, "min_length": 50, "length": 100}
    return datasets.load({"name": "listops", **small, **arguments})


def everything(data, split):
    return data.batch(split, torch.arange(data.sizes[split]))


def expressions_of(data, split):
    batch = everything(data, split)
    return [tokens[:length].tolist() for tokens, length in zip(batch.inputs, batch.lengths, strict=True)]


def parsed(tokens):
    """Value, depth of the deepest operator, and whether all lists have 2 to 10 arguments, by a stack of open lists."""
    stack, deepest, whole = [[None]], 0, True
    for place, token in enumerate(tokens):
        if token < 10:
            stack[-1].append(token)
        elif token < CLOSING:
            stack.append([token])
            deepest = max(deepest, len(stack) - 1)
        else:
            operator, *values = stack.pop()
            whole &= 2 <= len(values) <= 10
            stack[-1].append(OPERATORS[operator](values))
            whole &= len(stack) > 1 or place == len(tokens) - 1
    [[_, value]] = stack
    return value, deepest, whole


def draw_recursively(random, tokens, most, depth=1):
    """Append the tokens of a tree, by the definition; stop after ``most``."""
    if len(tokens) > most:
        return tokens
    if depth == 10 or (depth > 1 and random.random() < 0.75):
        return [*tokens, random.randrange(10)]
    tokens = [*tokens, random.randrange(10, 14)]
    for _ in range(random.randint(2, 10)):
        tokens = draw_recursively(random, tokens, most, depth + 1)
    return [*tokens, CLOSING]


def test_expressions_are_well_formed_and_have_their_values():
    data = load()
    assert (data.spec.input_size, data.spec.output_size, data.spec.output_steps, data.spec.tokens) == (16, 10, 0, True)
    for split in datasets.SPLITS:
        batch = everything(data, split)
        found = expressions_of(data, split)
        assert min(map(len, found)) >= 50
        assert max(map(len, found)) <= 100
        assert batch.inputs.shape[1] == max(map(len, found))
        for tokens, length, target in zip(batch.inputs, batch.lengths.tolist(), batch.targets.tolist(), strict=True):
            value, deepest, whole = parsed(tokens[:length].tolist())
            assert (value, whole) == (target, True)
            assert deepest <= 9
            assert (tokens[length:] == PADDING).all()


def test_the_default_lengths_are_those_of_the_original_and_operators_nest_nine_deep():
    """They keep 8 % of all trees, of which a quarter have an operator as their root."""
    kept = expressions.draw_expressions(np.random.default_rng(0), 3000, 501, 1999)
    starts = [0, *kept.ends[:-1]]
    depths = Counter()
    for start, end, value in zip(starts, kept.ends, kept.values, strict=True):
        found, deepest, whole = parsed(kept.symbols[start:end].tolist())
        assert (found, whole) == (value, True)
        assert 500 < end - start < 2000
        depths[deepest] += 1
    share = len(kept.ends) / 3000 / 4
    assert abs(share - 0.082) < 5 * (0.082 * 0.918 / 12000) ** 0.5
    assert set(depths) == {9}


def test_lengths_and_symbols_are_distributed_as_those_of_a_recursive_generator():
    naive = [tokens for tokens in (draw_recursively(Random(k), [], 40) for k in range(4000)) if 4 <= len(tokens) <= 40]
    kept = expressions.draw_expressions(np.random.default_rng(2), 4000, 4, 40)
    fast = np.split(kept.symbols, kept.ends[:-1])
    assert_same_share(len(naive), len(fast), 4000)
    for low, high in ((4, 6), (7, 8), (9, 10), (11, 12), (13, 20), (21, 40)):
        counts = [sum(low <= len(tokens) <= high for tokens in trees) for trees in (naive, fast)]
        assert_same_share(*counts, 4000)
    for symbol in range(15):
        found = [[(np.asarray(tokens) == symbol).mean() for tokens in trees] for trees in (naive, fast)]
        error = sum(np.var(each) / len(each) for each in found) ** 0.5
        assert abs(np.mean(found[0]) - np.mean(found[1])) < 5 * error
    values = [Counter(parsed(list(tokens))[0] for tokens in trees) for trees in (naive, fast)]
    for digit in range(10):
        assert_same_share(values[0][digit], values[1][digit], 4000)


def assert_same_share(first, second, of):
    """Two counts of equal numbers of draws differ by less than five standard deviations."""
    share = (first + second) / (2 * of)
    assert abs(first - second) < 5 * (2 * of * share * (1 - share)) ** 0.5


def test_no_expression_is_in_the_data_twice():
    data = load(min_length=4, length=5, train_samples=1500, validation_samples=200, test_samples=400)
    found = [tuple(tokens) for split in datasets.SPLITS for tokens in expressions_of(data, split)]
    assert len(found) == len(set(found)) == 2100


def test_the_seed_determines_the_data_and_the_test_is_independent_of_the_others():
    assert load().describe() == load().describe()
    assert load(seed=1).describe()["sha256"]["test"] != load().describe()["sha256"]["test"]
    assert expressions_of(load(train_samples=1, validation_samples=1), "test") == expressions_of(load(), "test")
    data = load()
    batch = data.batch("train", torch.tensor([7, 3]))
    whole = expressions_of(data, "train")
    assert [tokens[:length].tolist() for tokens, length in zip(batch.inputs, batch.lengths, strict=True)] == [
        whole[7],
        whole[3],
    ]


def test_different_trees_are_counted():
    four = {(operator, a, b, CLOSING) for operator, a, b in product(range(10, 14), range(10), range(10))}
    assert expressions.count_trees(4, 4) == len(four)
    assert expressions.count_trees(5, 5) == 4 * 1000
    # Lists of five digits, and lists of two nodes of which one is a list of two digits.
    assert expressions.count_trees(7, 7) == 4 * (10**5 + 2 * 10 * 400)


def test_impossible_lengths_and_numbers_are_refused():
    for arguments, message in (
        ({"length": 100, "min_length": 101}, r"^dataset\.min_length: got 101, expected at most dataset\.length=100$"),
        ({"length": 10_001}, r"^dataset\.length: got 10001, expected less than or equal to 10000$"),
        ({"length": 3}, r"^dataset\.length: got 3, expected greater than or equal to 4$"),
        (
            {"length": 4, "min_length": 4},
            r"^dataset\.length: got 4 for 500 different expressions in all splits, expected at most 200, half of those of 4",
        ),
    ):
        with pytest.raises(UserError, match=message):
            load(**arguments)


@cache
def shapes(symbols, depth, deepest):
    """Each shape of a node of so many symbols at a depth, such as ``(d(dd))``, with its probability by the definition."""
    if symbols == 1:
        return {"d": 1.0 if depth == deepest else 0.75}
    found = Counter()
    for arguments in range(2, 11) if depth < deepest else ():
        lists = {("", 2): 0.25 / 9}
        for _ in range(arguments):
            longer = Counter()
            for (text, used), probability in lists.items():
                for size in range(1, symbols - used + 1):
                    for shape, each in shapes(size, depth + 1, deepest).items():
                        longer[text + shape, used + size] += probability * each
            lists = longer
        found.update({f"({text})": probability for (text, used), probability in lists.items() if used == symbols})
    return dict(found)


@pytest.mark.parametrize("deepest", [3, 10])
@pytest.mark.parametrize("draw", ["by their lengths", "rejected"])
def test_shapes_of_given_lengths_have_their_probabilities(monkeypatch, deepest, draw):
    """Of 4 to 10 symbols, of which three operators may be in a row, unless the third is too deep."""
    for module in (expressions, expression_lengths):
        monkeypatch.setattr(module, "DEPTH", deepest)
    expected = Counter()
    for symbols in range(4, 11):
        expected.update(shapes(symbols, 1, deepest))
    lengths = expression_lengths.ExpressionLengths(12)
    assert lengths.share(4, 10) == pytest.approx(sum(expected.values()) / 0.25)
    assert any("(((" in shape for shape in expected) is (deepest == 10)
    random = np.random.default_rng(5)
    rejected = draw == "rejected"
    kept = expressions.draw_expressions(random, 20_000, 4, 10) if rejected else lengths.draw(random, 6000, 4, 10)
    letters = np.array([*"d" * 10, *"((((", ")"])[kept.symbols]
    found = Counter("".join(each) for each in np.split(letters, kept.ends[:-1]))
    assert found.keys() <= expected.keys()
    common = [shape for shape, probability in expected.items() if probability > 0.002 * sum(expected.values())]
    counts = [found[shape] for shape in common]
    total = sum(expected.values())
    assert_frequencies([*counts, len(kept.ends) - sum(counts)], frequencies(common, expected, total))


def frequencies(common, expected, total):
    shares = [expected[shape] / total for shape in common]
    return [*shares, 1 - sum(shares)]


def test_long_expressions_of_one_length_are_drawn_at_once():
    """Of 1,000 symbols have 3 in 10,000 trees; their operators, values and depths are those of rejected draws."""
    lengths = expression_lengths.ExpressionLengths(1000)
    assert lengths.share(1000, 1000) == pytest.approx(2.6e-4, rel=0.1)
    kept = lengths.draw(np.random.default_rng(0), 200, 1000, 1000)
    assert (np.diff(kept.ends, prepend=0) == 1000).all()
    for tokens, value in zip(kept.symbols.reshape(200, 1000).tolist(), kept.values, strict=True):
        found, deepest, whole = parsed(tokens)
        assert (found, whole, deepest) == (value, True, 9)


def test_a_rare_length_is_drawn_by_its_probability():
    data = load(length=700, min_length=699)
    assert {len(tokens) for tokens in expressions_of(data, "train")} == {699, 700}
