"""The adding problem against its definition."""

import math
import time

import pytest
import torch

from seqmem import datasets
from seqmem.errors import UserError

SIZES = {"train_samples": 2000, "validation_samples": 20, "test_samples": 10}


def test_targets_are_the_sums_of_marked_numbers():
    for length in [2, 3, 100]:
        data = datasets.load({"name": "adding", "length": length, **SIZES})
        for batch in data.loader("train", 333):
            numbers, markers = batch.inputs.unbind(-1)
            assert 0 <= numbers.min() <= numbers.max() < 1
            assert ((markers == 0) | (markers == 1)).all()
            assert (markers[:, : length // 2].sum(1) == 1).all()
            assert (markers[:, length // 2 :].sum(1) == 1).all()
            torch.testing.assert_close(batch.targets, (numbers * markers).sum(1, keepdim=True))


def test_every_step_is_marked_and_predicting_one_has_an_error_of_a_sixth():
    data = datasets.load({"name": "adding", "length": 21, **SIZES})
    batch = data.batch("train", torch.arange(2000))
    assert (batch.inputs[..., 1].sum(0) > 0).all()
    # The squared distance of a sum of two uniform numbers from 1 has mean 1/6 and variance 1/15 - 1/36.
    assert abs((batch.targets - 1).square().mean() - 1 / 6) < 4 * math.sqrt((1 / 15 - 1 / 36) / 2000)


def test_the_default_size_loads_quickly():
    start = time.process_time()
    data = datasets.load({"name": "adding"})
    assert time.process_time() - start < 3
    assert data._numbers["train"].nbytes < 2**30
    assert next(iter(data.loader("train", 50))).inputs.shape == (50, 1000, 2)


def test_one_step_is_refused():
    with pytest.raises(UserError, match=r"^dataset\.length: got 1, expected greater than or equal to 2$"):
        datasets.check({"name": "adding", "length": 1})


def test_the_marks_of_addition_are_any_two_different_steps():
    for length in [2, 21]:
        data = datasets.load({"name": "addition", "length": length, **SIZES})
        batch = data.batch("train", torch.arange(2000))
        numbers, markers = batch.inputs.unbind(-1)
        assert (markers.sum(1) == 2).all()
        torch.testing.assert_close(batch.targets, (numbers * markers).sum(1, keepdim=True))
        pairs = markers.nonzero()[:, 1].view(-1, 2)
        _, counts = pairs.unique(dim=0, return_counts=True)
        expected = 2000 / math.comb(length, 2)
        assert len(counts) == math.comb(length, 2)
        assert (counts - expected).abs().max() <= 6 * math.sqrt(expected)
