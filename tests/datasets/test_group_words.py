"""Word problems of groups: products by composing permutations and adding numbers, and sets of different words."""

import math
from itertools import permutations, product

import numpy as np
import pytest
import torch

from seqmem import datasets
from seqmem.datasets.group_words import product_table, products
from seqmem.errors import UserError

FEW = {"train_samples": 40, "validation_samples": 3, "test_samples": 5}


def parity(permutation):
    """0 for even: the number of cycles of even length, modulo 2."""
    left, odd = set(range(len(permutation))), 0
    while left:
        place, steps = left.pop(), 1
        while permutation[place] in left:
            place = permutation[place]
            left.remove(place)
            steps += 1
        odd += steps % 2 == 0
    return odd % 2


def composed(p, q):
    return tuple(p[q[i]] for i in range(len(p)))


def added(order):
    return lambda a, b: (a + b) % order


def paired(a, b):
    return composed(a[0], b[0]), (a[1] + b[1]) % 5


def even(degree):
    return [permutation for permutation in sorted(permutations(range(degree))) if parity(permutation) == 0]


ELEMENTS = {
    "S5": (sorted(permutations(range(5))), composed),
    "A5": (even(5), composed),
    "A4xZ5": ([(a, b) for a in even(4) for b in range(5)], paired),
    "Z60": (list(range(60)), added(60)),
    "S3": (sorted(permutations(range(3))), composed),
    "Z2": ([0, 1], added(2)),
}
"""Elements by their numbers, and the product of two."""

every_group = pytest.mark.parametrize("group", ELEMENTS)


def load(group, **arguments):
    return datasets.load({"name": "group_words", "group": group, **FEW, **arguments})


@every_group
def test_tables_are_those_of_the_groups(group):
    elements, times = ELEMENTS[group]
    numbers = {element: number for number, element in enumerate(elements)}
    assert len(elements) == {"S5": 120, "A5": 60, "A4xZ5": 60, "Z60": 60, "S3": 6, "Z2": 2}[group]
    expected = [[numbers[times(p, q)] for q in elements] for p in elements]
    assert product_table(group).tolist() == expected
    assert expected[0] == list(range(len(elements)))  # the identity is 0


def test_permutations_do_not_commute():
    """(p q)[i] = p[q[i]]: in S3 the elements 1 and 2 are (0 2 1) and (1 0 2), whose product is (2 0 1), element 4."""
    table = product_table("S3")
    assert (table[1, 2], table[2, 1]) == (4, 3)


@every_group
def test_targets_are_the_products_so_far(group):
    elements, times = ELEMENTS[group]
    data = load(group, length=33)
    assert (data.spec.input_size, data.spec.output_size, data.spec.output_steps) == (len(elements), len(elements), None)
    for split in datasets.SPLITS:
        for batch in data.loader(split, 5):
            for word, found in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
                so_far = elements[0]
                for element, number in zip(word, found, strict=True):
                    so_far = times(so_far, elements[element])
                    assert elements[number] == so_far


def test_products_of_any_length():
    table = product_table("S5")
    words = np.random.default_rng(0).integers(0, 120, (3, 1000)).astype(np.uint8)
    for steps in (1, 2, 3, 64, 1000):
        by_steps = [words[:, 0]]
        for step in range(1, steps):
            by_steps.append(table[by_steps[-1], words[:, step]])
        assert (products(words[:, :steps], table) == np.stack(by_steps, 1)).all()


def test_training_has_shorter_words_and_the_other_splits_do_not():
    data = load("A5", length=6, min_length=3)
    seen = set()
    for epoch in range(5):
        loader = data.loader("train", 4)
        loader.sampler.set_epoch(epoch)
        seen |= {batch.inputs.shape[1] for batch in loader}
    assert seen == {3, 4, 5, 6}
    for split in ("validation", "test"):
        assert {batch.inputs.shape[1] for batch in data.loader(split, 2)} == {6}
    fixed = load("A5", length=6, min_length=3, fresh=False)
    assert sorted(batch.inputs.shape[1] for batch in fixed.loader("train", 10)) == [3, 4, 5, 6]


def words(data, split):
    return [tuple(row) for batch in data.loader(split, 300) for row in batch.inputs.tolist()]


def test_no_word_is_twice():
    """As many words as there are: each is in one split, once."""
    sizes = {"train_samples": 162, "validation_samples": 27, "test_samples": 27}
    data = load("S3", length=3, min_length=3, fresh=False, **sizes)
    found = [word for split in datasets.SPLITS for word in words(data, split)]
    assert sorted(found) == list(product(range(6), repeat=3))
    # Larger than a block of a fixed split, and with more words than 64-bit numbers.
    data = load("Z2", length=80, min_length=80, fresh=False, train_samples=1500)
    assert len(set(words(data, "train"))) == 1500


def test_training_has_all_words_but_those_of_the_other_splits():
    everything = {"length": 2, "min_length": 2, "train_samples": 20_000, "validation_samples": 5, "test_samples": 4}
    data = load("S3", **everything)
    held_out = {*words(data, "validation"), *words(data, "test")}
    assert len(held_out) == 9
    found, counts = np.unique(words(data, "train"), axis=0, return_counts=True)
    assert {tuple(word) for word in found.tolist()} == set(product(range(6), repeat=2)) - held_out
    expected = 20_000 / 27
    assert np.abs(counts - expected).max() < 5 * math.sqrt(expected)


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("other", [{}, {"seed": 1}, {"test_samples": 60}, {"validation_samples": 4}, {"min_length": 4}])
def test_no_seed_size_or_length_tests_on_words_of_the_training(fresh, other):
    """Of S3, 1,296 words have 4 elements: chance would have a fourth of the test's words in the training."""
    given = {"name": "group_words", "group": "S3", "fresh": fresh, "length": 5, "min_length": 3, **FEW, "test_samples": 27}
    trained = datasets.load({**given, "train_samples": 480 if fresh else 400})
    seen = {word for batch in trained.loader("train", 20) for word in map(tuple, batch.inputs.tolist())}
    assert {len(word) for word in seen} == {3, 4, 5}
    tested = datasets.load({**given, **other})
    for length in (3, 4, 5):
        data = datasets.load(datasets.at_length({**given, **other, "test_samples": 27}, length))
        for split in ("validation", "test"):
            assert not seen & set(words(data, split)), (length, split)
    assert not seen & set(words(tested, "test"))


def test_another_number_of_samples_begins_with_the_same_words():
    few, many = (words(load("A5", length=4, test_samples=count), "test") for count in (50, 300))
    assert few == many[:50]
    assert few != words(load("A5", length=4, test_samples=50, seed=1), "test")


@pytest.mark.parametrize("fresh", [True, False])
def test_elements_are_uniform(fresh):
    """Over all steps, beyond those that make words different, too; neighbours are independent."""
    data = load("A4xZ5", length=40, min_length=40, fresh=fresh, train_samples=3000)
    inputs = torch.cat([batch.inputs for batch in data.loader("train", 500)]).numpy()
    expected = 3000 / 60
    for step in (0, 1, 9, 10, 39):
        assert np.abs(np.bincount(inputs[:, step], minlength=60) - expected).max() < 5 * math.sqrt(expected), step
    coarse = inputs // 20
    pairs = np.bincount((coarse[:, :-1] * 3 + coarse[:, 1:]).flatten(), minlength=9)
    expected = 3000 * 39 / 9
    assert np.abs(pairs - expected).max() < 5 * math.sqrt(expected)


def test_a_length_is_that_of_all_splits():
    given = {"name": "group_words", "group": "Z60", **FEW}
    data = datasets.load(datasets.at_length(given, 70))
    assert [data.lengths[split] for split in datasets.SPLITS] == [[70]] * 3
    assert words(data, "test") == words(load("Z60", length=70), "test")


def test_what_is_impossible_is_refused():
    for arguments, message in (
        (
            {"length": 2},
            r"^dataset\.length: got 2, but 4 of 36 words of S3 are for the test split, and it has 5 different ones; "
            r"expected at least 3 or test_samples of at most 4$",
        ),
        (
            {"length": 3, "fresh": False, "train_samples": 100},
            r"^dataset\.min_length: got 2, but 27 of 36 words of S3 are for the train split, and it has 50 different ones; "
            r"expected at least 3 or train_samples of at most 54$",
        ),
        (
            {"length": 1, "min_length": 1},
            r"^dataset\.length: got 1, but 0 of 6 words of S3 are for the test split, .*; expected at least 3$",
        ),
        ({"length": 5, "test_samples": 973}, r"^dataset\.length: got 5, but 972 of 7776 .* 973 .* least 6 or "),
        ({"test_samples": 10**18}, r"expected test_samples of at most \d+$"),
        ({"length": 20, "min_length": 21}, r"^dataset\.min_length: got 21, expected at most dataset\.length=20$"),
        ({"group": "A6"}, r"^dataset\.group: got 'A6', expected .*'A5'"),
    ):
        with pytest.raises(UserError, match=message):
            load(**{"group": "S3", **arguments})
