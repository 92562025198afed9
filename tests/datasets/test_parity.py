"""Parity and even pairs: answers counted symbol by symbol, and uniform bits."""

import math
from itertools import pairwise

import numpy as np
import pytest

from seqmem import datasets


def number_of_ones(bits):
    return sum(1 for bit in bits if bit == 1)


def number_of_changes(bits):
    return sum(1 for before, after in pairwise(bits) if before != after)


@pytest.mark.parametrize(("name", "counted"), [("parity", number_of_ones), ("even_pairs", number_of_changes)])
def test_answers_are_counts_modulo_two(name, counted):
    data = datasets.load({"name": name})
    for length in (1, 2, 3, 40, 301):
        inputs, targets = data.draw(np.random.default_rng(length), 60, length)
        assert inputs.shape == (60, length + 1)
        assert (inputs[:, -1] == 2).all()
        assert [counted(row) % 2 for row in inputs[:, :-1].tolist()] == targets.tolist()


def test_a_single_bit_has_no_pair():
    _, targets = datasets.load({"name": "even_pairs"}).draw(np.random.default_rng(0), 50, 1)
    assert not targets.any()


@pytest.mark.parametrize("name", ["parity", "even_pairs"])
def test_all_sequences_are_equally_likely(name):
    inputs, _ = datasets.load({"name": name}).draw(np.random.default_rng(0), 32_000, 5)
    counts = np.bincount(inputs[:, :-1] @ 2 ** np.arange(5), minlength=32)
    assert len(counts) == 32
    assert np.abs(counts - 1000).max() < 5 * math.sqrt(1000)
