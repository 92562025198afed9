"""The copying task, rebuilt from its definition."""

import math
import tracemalloc

import numpy as np
import pytest
import torch

from seqmem import datasets
from seqmem.errors import UserError

SIZES = {"train_samples": 300, "validation_samples": 20, "test_samples": 10}


@pytest.mark.parametrize("variable", [False, True])
@pytest.mark.parametrize(("length", "tokens", "alphabet"), [(100, 10, 10), (1, 1, 3), (5, 12, 4), (31, 3, 17)])
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
        for row, wanted in zip(inputs[:, :-tokens], targets, strict=True):
            assert (row[row != 0] == wanted).all()
            assert (row == 0).sum() == length
            assert 1 <= wanted.min() <= wanted.max() <= alphabet - 2
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


@pytest.mark.parametrize(("tokens", "alphabet"), [(10, 10), (12, 10), (3, 17)])
def test_perfect_prediction_has_no_loss(tokens, alphabet):
    data = datasets.load({"name": "copying", "tokens": tokens, "alphabet": alphabet, **SIZES})
    batch = next(iter(data.loader("validation", 20)))
    logits = 100.0 * torch.nn.functional.one_hot(batch.targets, data.spec.output_size)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
    assert loss < 1e-6


def test_large_data_is_cheap():
    """Sequences are written out a batch at a time, so long ones cost no memory at the start."""
    data = datasets.load({"name": "copying", "length": 1_000_000, **SIZES})
    assert next(iter(data.loader("test", 2))).inputs.shape == (2, 1_000_020)


@pytest.mark.parametrize(
    ("argument", "value", "wanted"),
    [
        ("length", 0, "greater than 0"),
        ("tokens", -3, "greater than 0"),
        ("alphabet", 2, "greater than or equal to 3"),
        ("variable", "yes", "a valid boolean"),
        ("train_samples", True, "a valid integer"),
        ("seed", 2**32, "less than 4294967296"),
    ],
)
def test_wrong_values_are_refused(argument, value, wanted):
    with pytest.raises(UserError, match=rf"^dataset\.{argument}: got {value!r}, expected {wanted}$"):
        datasets.check({"name": "copying", argument: value})


def test_variable_positions_in_long_sequences_keep_only_what_is_needed():
    sizes = {"train_samples": 5000, "validation_samples": 1, "test_samples": 1}
    tracemalloc.start()
    datasets.load({"name": "copying", "length": 10_000, "variable": True, **sizes})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # One block of keys and one of their order take 32 MiB each; the order of all rows together would take 400 MB.
    assert peak < 150e6


@pytest.mark.parametrize("encoding", ["raw", "one_hot"])
@pytest.mark.parametrize("length", [1, 2, 100, 25_000])
def test_copy_memory_is_as_defined(length, encoding):
    """Ten symbols of 0 to 7, T - 1 blanks (8), 11 markers (9); the symbols are wanted at the last ten steps."""
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
