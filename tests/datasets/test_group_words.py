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
    sizes = {"train_samples": 100, "validation_samples": 50, "test_samples": 66}
    data = load("S3", length=3, min_length=3, fresh=False, **sizes)
    found = [word for split in datasets.SPLITS for word in words(data, split)]
    assert sorted(found) == list(product(range(6), repeat=3))
    # Larger than a block of a fixed split, and with more words than 64-bit numbers.
    data = load("Z2", length=80, min_length=80, fresh=False, train_samples=1500)
    assert len(set(words(data, "train"))) == 1500


def test_fresh_words_are_those_that_are_not_held_out():
    data = load("S3", length=2, min_length=2, train_samples=20_000, validation_samples=4, test_samples=12)
    held_out = {*words(data, "validation"), *words(data, "test")}
    assert len(held_out) == 16
    found, counts = np.unique(words(data, "train"), axis=0, return_counts=True)
    assert {tuple(word) for word in found.tolist()} == set(product(range(6), repeat=2)) - held_out
    assert np.abs(counts - 1000).max() < 5 * math.sqrt(1000)


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
            {"length": 2, "test_samples": 40},
            r"^dataset\.length: got 2, of which there are 36 words of S3, but all splits have 44 different ones; expected at "
            r"least 3, or fewer samples$",
        ),
        (
            {"length": 3, "fresh": False, "train_samples": 100},
            r"^dataset\.min_length: got 2, of which there are 36 words of S3, .* 50 different ones; expected at least 3, or",
        ),
        (
            {"length": 3, "fresh": False, "train_samples": 500, "min_length": 3},
            r"length: got 3, .* 216 words .* 508 .* least 4, ",
        ),
        ({"min_length": 21}, r"^dataset\.min_length: got 21, expected at most dataset\.length=20$"),
        ({"group": "A6"}, r"^dataset\.group: got 'A6', expected .*'A5'"),
    ):
        with pytest.raises(UserError, match=message):
            load(**{"group": "S3", **arguments})
