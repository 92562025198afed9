"""Selective copying against its definition, by counting and by reading each sequence step by step."""

import math

import numpy as np
import pytest
import torch

from seqmem import datasets
from seqmem.errors import UserError

from .counts import assert_frequencies


def drawn(count, **arguments):
    data = datasets.load({"name": "selective_copying", "validation_samples": count, **arguments})
    batch = data.batch("validation", torch.arange(count))
    return data, batch.inputs.tolist(), batch.targets.tolist()


@pytest.mark.parametrize(("length", "tokens", "alphabet"), [(4096, 16, 16), (10, 10, 3), (7, 1, 5)])
def test_the_markers_ask_for_the_tokens_in_order(length, tokens, alphabet):
    data, inputs, targets = drawn(30, length=length, tokens=tokens, alphabet=alphabet)
    assert (data.spec.input_size, data.spec.output_size, data.spec.output_steps) == (alphabet, alphabet, tokens)
    for row, target in zip(inputs, targets, strict=True):
        assert len(row) == data.spec.max_length == length + tokens
        memory = [symbol for symbol in row[:length] if symbol != 0]
        assert memory == target
        assert set(memory) <= set(range(1, alphabet - 1))
        assert row[length:] == [alphabet - 1] * tokens


def test_the_defaults_are_those_of_the_source():
    data = datasets.load({"name": "selective_copying"})
    batch = next(iter(data.loader("train", 64, 0)))
    assert batch.inputs.shape == (64, 4112)
    assert batch.targets.shape == (64, 16)
    assert (data.spec.input_size, data.fresh) == (16, True)


def test_places_are_uniform_subsets_and_tokens_are_uniform():
    _, inputs, targets = drawn(6000, length=6, tokens=2, alphabet=6)
    subsets = [tuple(np.flatnonzero(row[:6])) for row in inputs]
    found, counts = np.unique(subsets, axis=0, return_counts=True)
    assert len(found) == math.comb(6, 2)
    assert_frequencies(counts, np.full(15, 1 / 15))
    pairs = np.array(targets)
    assert_frequencies(np.bincount(pairs[:, 0] * 4 + pairs[:, 1] - 5, minlength=16), np.full(16, 1 / 16))


def test_it_has_the_form_of_copying():
    """The same sizes give sequences of the same distribution: the same shape and spec, and equal mean places."""
    sizes = {"tokens": 3, "alphabet": 7, "train_samples": 4000}
    copying = datasets.load({"name": "copying", "variable": True, "length": 17, **sizes})
    selective = datasets.load({"name": "selective_copying", "length": 20, "fresh": False, **sizes})
    assert {**vars(copying.spec), "name": ""} == {**vars(selective.spec), "name": ""}
    means = []
    for data in (copying, selective):
        inputs = data.batch("train", torch.arange(4000)).inputs
        means.append((inputs[:, :20] != 0).float().mean(0))
    assert (means[0] - means[1]).abs().max() < 4.5 * (2 * 0.15 * 0.85 / 4000) ** 0.5


def test_more_tokens_than_steps_are_refused():
    with pytest.raises(UserError, match=r"^dataset\.tokens: got 17, expected at most dataset\.length=16, the steps before"):
        datasets.load({"name": "selective_copying", "length": 16, "tokens": 17})
