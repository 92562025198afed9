"""The copying task against its definition."""

import math
import tracemalloc

import numpy as np
import pytest
import torch

from seqmem import datasets
from seqmem.errors import UserError

SIZES = {"train_samples": 300, "validation_samples": 20, "test_samples": 10}


@pytest.mark.parametrize(
    ("length", "tokens", "alphabet", "variable"),
    [(100, 10, 10, False), (1, 1, 3, False), (5, 12, 4, True), (31, 3, 17, True)],
)
def test_sequences_are_as_defined(length, tokens, alphabet, variable):
    data = datasets.load(
        {"name": "copying", "length": length, "tokens": tokens, "alphabet": alphabet, "variable": variable, **SIZES}
    )
    assert data.spec.max_length == length + 2 * tokens
    assert data.spec.output_steps == tokens
    assert data.spec.input_size == data.spec.output_size == alphabet
    for batch in data.loader("train", 77):
        inputs, targets = batch.inputs.numpy(), batch.targets.numpy()
        assert inputs.shape[1] == length + 2 * tokens
        assert (inputs[:, -tokens:] == alphabet - 1).all()
        for row, target in zip(inputs[:, :-tokens], targets, strict=True):
            assert (row[row != 0] == target).all()
            assert (row == 0).sum() == length
            assert 1 <= target.min() <= target.max() <= alphabet - 2
        if not variable:
            assert (inputs[:, :tokens] == targets).all()


def test_symbols_are_uniform():
    data = datasets.load({"name": "copying", "alphabet": 7, **SIZES})
    counts = np.bincount(data.batch("train", torch.arange(300)).targets.flatten().numpy(), minlength=7)
    assert counts[[0, 6]].tolist() == [0, 0]
    expected = 3000 / 5
    assert np.abs(counts[1:6] - expected).max() < 5 * math.sqrt(expected)


def test_variable_positions_are_uniform_subsets():
    sizes = {**SIZES, "train_samples": 5000}
    data = datasets.load({"name": "copying", "length": 6, "tokens": 2, "variable": True, **sizes})
    inputs = data.batch("train", torch.arange(5000)).inputs
    places = [tuple(row.nonzero().flatten().tolist()) for row in inputs[:, :-2]]
    pairs, counts = np.unique(places, axis=0, return_counts=True)
    assert len(pairs) == math.comb(8, 2)
    assert np.abs(counts - 5000 / 28).max() < 5 * math.sqrt(5000 / 28)


def test_variable_positions_are_uniform_over_long_sequences():
    sizes = {**SIZES, "train_samples": 150}
    data = datasets.load({"name": "copying", "length": 2700, "tokens": 300, "variable": True, **sizes})
    inputs = data.batch("train", torch.arange(150)).inputs[:, :-300]
    counts = (inputs != 0).sum(0).reshape(100, 30).sum(1)
    expected = 150 * 300 / 100
    assert (counts - expected).abs().max() < 5 * math.sqrt(expected)


def test_large_data_are_cheap():
    """Sequences are built batch by batch, so long ones take no memory before."""
    data = datasets.load({"name": "copying", "length": 1_000_000, **SIZES})
    assert next(iter(data.loader("test", 2))).inputs.shape == (2, 1_000_020)


def test_wrong_values_are_refused():
    for argument, value, expected in (
        ("length", 0, "greater than 0"),
        ("tokens", -3, "greater than 0"),
        ("alphabet", 2, "greater than or equal to 3"),
        ("variable", "yes", "a valid boolean"),
        ("train_samples", True, "a valid integer"),
        ("seed", 2**32, "less than 4294967296"),
    ):
        with pytest.raises(UserError, match=rf"^dataset\.{argument}: got {value!r}, expected {expected}$"):
            datasets.check({"name": "copying", argument: value})


def test_variable_positions_are_drawn_in_blocks_of_memory():
    sizes = {"train_samples": 2000, "validation_samples": 1, "test_samples": 1}
    tracemalloc.start()
    datasets.load({"name": "copying", "length": 10_000, "variable": True, **sizes})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # One block of keys and one of their order take 32 MiB each; the order of all rows together would take 160 MB.
    assert peak < 120e6


def test_copy_memory_is_as_defined():
    """Ten symbols of 0 to 7, T - 1 blanks (8), 11 markers (9); the targets of the last ten steps are the symbols."""
    for length, encoding in [(1, "raw"), (2, "one_hot"), (25_000, "raw")]:
        data = datasets.load({"name": "copy_memory", "length": length, "encoding": encoding, **SIZES})
        assert (data.spec.output_steps, data.spec.output_size, data.spec.max_length) == (10, 8, length + 20)
        assert (data.spec.tokens, data.spec.input_size) == ((True, 10) if encoding == "one_hot" else (False, 1))
        batch = data.batch("train", torch.arange(7))
        symbols = batch.inputs if encoding == "one_hot" else batch.inputs.squeeze(-1)
        assert symbols.shape == (7, length + 20)
        assert torch.equal(symbols[:, :10].long(), batch.targets)
        assert (symbols[:, 10:-11] == 8).all()
        assert symbols[:, 10:-11].shape[1] == length - 1
        assert (symbols[:, -11:] == 9).all()


def test_symbols_of_copy_memory_are_uniform():
    data = datasets.load({"name": "copy_memory", "length": 5, **SIZES})
    counts = data.batch("train", torch.arange(300)).targets.flatten().bincount(minlength=8)
    assert (counts - 3000 / 8).abs().max() < 5 * math.sqrt(3000 / 8)
