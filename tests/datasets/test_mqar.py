"""Multi-query associative recall against its definition, by counting and by reading each sequence step by step."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from seqmem import datasets
from seqmem.data import IGNORE_INDEX
from seqmem.errors import UserError

from .counts import assert_frequencies


def drawn(count, **arguments):
    data = datasets.load({"name": "mqar", "validation_samples": count, **arguments})
    batch = data.batch("validation", torch.arange(count))
    return data, batch.inputs.numpy(), batch.targets.numpy()


@pytest.mark.parametrize("filling", ["random", "zeros"])
@pytest.mark.parametrize(
    ("length", "pairs", "vocabulary"), [(64, 4, 8192), (512, 64, 8192), (4, 1, 4), (8, 2, 7), (200, 50, 102)]
)
def test_each_key_comes_again_where_its_value_is_asked_for(length, pairs, vocabulary, filling):
    data, inputs, targets = drawn(40, length=length, pairs=pairs, vocabulary=vocabulary, filling=filling)
    assert (data.spec.input_size, data.spec.output_size, data.spec.output_steps) == (vocabulary, vocabulary, None)
    for row, target in zip(inputs.tolist(), targets.tolist(), strict=True):
        memory, keys = {}, []
        for step in range(0, 2 * pairs, 2):
            assert 1 <= row[step] < vocabulary // 2 <= row[step + 1] < vocabulary
            memory[row[step]] = row[step + 1]
        assert len(memory) == len(set(memory.values())) == pairs
        for step in range(length):
            if target[step] != IGNORE_INDEX:
                assert step >= 2 * pairs
                assert step % 2 == 0
                assert memory[row[step]] == target[step]
                keys.append(row[step])
            elif step >= 2 * pairs and filling == "zeros":
                assert row[step] == 0
        assert sorted(keys) == sorted(memory)


def test_keys_values_and_random_fillings_are_uniform():
    _, inputs, targets = drawn(4000, length=16, pairs=2, vocabulary=10)
    for steps, probabilities in (([0, 2], [0] + [1 / 4] * 4 + [0] * 5), ([1, 3], [0] * 5 + [1 / 5] * 5)):
        for step in steps:
            assert_frequencies(np.bincount(inputs[:, step], minlength=10), probabilities)
    pairs = np.bincount(inputs[:, 0] * 10 + inputs[:, 2], minlength=100)
    assert_frequencies(pairs[pairs > 0], np.full(12, 1 / 12))
    filled = inputs[:, 4:][targets[:, 4:] == IGNORE_INDEX]
    assert_frequencies(np.bincount(filled, minlength=10), np.full(10, 0.1))


def test_distances_are_drawn_without_replacement_from_the_power_law():
    """The place of each key in turn, against the probabilities of all orders of three of the five places."""
    count = 20_000
    _, inputs, targets = drawn(count, length=16, pairs=3, vocabulary=40)
    law = np.arange(1, 6) ** (0.01 - 1)
    places = [(inputs[:, 6:] == inputs[:, step : step + 1]) & (targets[:, 6:] != IGNORE_INDEX) for step in (0, 2, 4)]
    first, second, third = (place.argmax(1) // 2 for place in places)
    orders = first * 25 + second * 5 + third
    probabilities = np.zeros(125)
    for a, b, c in itertools.permutations(range(5), 3):
        left = law.sum() - law[a]
        probabilities[a * 25 + b * 5 + c] = law[a] / law.sum() * law[b] / left * law[c] / (left - law[b])
    assert_frequencies(np.bincount(orders, minlength=125), probabilities)


def test_equal_distances_with_power_1():
    _, _, targets = drawn(4000, length=24, pairs=1, vocabulary=40, power=1)
    assert_frequencies(np.bincount((targets != IGNORE_INDEX).argmax(1), minlength=24), [0, 0] + [1 / 11, 0] * 11)


def test_the_largest_power_puts_almost_all_queries_at_the_end():
    _, _, targets = drawn(100, length=4096, pairs=1, vocabulary=40, power=10)
    assert ((targets != IGNORE_INDEX).argmax(1) > 2000).mean() > 0.9


def test_the_defaults_are_those_of_the_source():
    data = datasets.load({"name": "mqar"})
    assert (data.sizes["train"], data.sizes["test"]) == (100_000, 3_000)
    batch = next(iter(data.loader("train", 512, 0)))
    assert batch.inputs.shape == batch.targets.shape == (512, 64)
    assert ((batch.targets != IGNORE_INDEX).sum(1) == 4).all()


def test_training_batches_have_one_of_a_mixture():
    """Validation and test have the pairs of ``pairs``, at a length of the mixture, too."""
    data = datasets.load({"name": "mqar", "length": 32, "pairs": 4, "mixture": [[64, 4], [32, 8]], "train_samples": 800})
    batches = list(data.loader("train", 8, 0))
    found = Counter((batch.inputs.shape[1], *{int(row) for row in (batch.targets != IGNORE_INDEX).sum(1)}) for batch in batches)
    assert_frequencies(np.array([found.pop((32, 8)), found.pop((64, 4))]), [0.5, 0.5])
    assert not found
    assert data.spec.max_length == 64
    for split in ("validation", "test"):
        batch = data.batch(split, torch.arange(9))
        assert batch.inputs.shape == (9, 32)
        assert ((batch.targets != IGNORE_INDEX).sum(1) == 4).all()
    fixed = datasets.load({"name": "mqar", "mixture": [[64, 4], [32, 8]], "train_samples": 10, "fresh": False})
    assert [int((fixed.batch("train", torch.tensor([row])).targets != IGNORE_INDEX).sum()) for row in range(10)] == [8] * 5 + [
        4
    ] * 5


def test_impossible_sizes_are_refused_with_both_numbers():
    for arguments, message in (
        ({"power": 11}, r"dataset\.power: got 11, expected less than or equal to 10$"),
        ({"length": 63}, r"dataset\.length: got 63, expected an even number; did you mean 64\?"),
        (
            {"pairs": 17},
            r"dataset\.pairs: got 17, expected at most 16, a quarter of dataset\.length=64; .*=68 has room for 17",
        ),
        ({"mixture": []}, r"dataset\.mixture: got \[\], expected \[T, N\] of training batches, or null"),
        ({"mixture": [[64, 4], [63, 4]]}, r"dataset\.mixture\.1\.0: got 63, expected an even number; did you mean 64\?"),
        (
            {"mixture": [[64, 17]]},
            r"dataset\.mixture\.0\.1: got 17, expected at most 16, a quarter of dataset\.mixture\.0\.0=64;",
        ),
        ({"mixture": [[64, 4], [64, 8]]}, r"dataset\.mixture\.1\.0: got 64 a second time, expected different lengths$"),
        ({"mixture": [[64]]}, r"dataset\.mixture\.0: got \[64\], expected at least 2 items$"),
        ({"vocabulary": 8}, r"dataset\.pairs: got 4, expected at most 3, the keys of dataset\.vocabulary=8; .*=10 has 4 keys"),
    ):
        with pytest.raises(UserError, match=f"^{message}"):
            datasets.load({"name": "mqar", **arguments})
