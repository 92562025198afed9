"""Finding maxima, against its definition."""

import math

import pytest
import torch

from seqmem import datasets
from seqmem.errors import UserError

SIZES = {"train_samples": 3000, "validation_samples": 20, "test_samples": 10}


def test_classes_count_the_maxima_of_the_upper_half():
    for length, channels in [(20, 10), (1, 2), (7, 6)]:
        data = datasets.load({"name": "findmax", "length": length, "channels": channels, **SIZES})
        assert data.spec.output_size == length + 1
        for batch in data.loader("train", 777):
            upper = batch.inputs.argmax(-1) >= channels // 2
            assert torch.equal(upper.sum(1), batch.targets)


def test_classes_steps_and_channels_are_uniform_and_the_numbers_are_normal():
    data = datasets.load({"name": "findmax", "length": 9, "channels": 4, **SIZES})
    batch = data.batch("train", torch.arange(3000))
    for values, classes in ((batch.targets, 10), (batch.inputs.argmax(-1).flatten(), 4)):
        expected = len(values) / classes
        # Steps of a sequence have one class, so the channels' counts vary more than independent ones would.
        assert (values.bincount(minlength=classes) - expected).abs().max() < 8 * math.sqrt(expected)
    at_step = (batch.inputs.argmax(-1) >= 2).float().mean(0)
    assert (at_step - 0.5).abs().max() < 5 * 0.5 / math.sqrt(3000)
    assert abs(batch.inputs.mean()) < 5 / math.sqrt(batch.inputs.numel())
    assert abs(batch.inputs.square().mean() - 1) < 5 * math.sqrt(2 / batch.inputs.numel())


def test_an_odd_number_of_channels_is_refused():
    with pytest.raises(UserError, match=r"^dataset\.channels: got 5, expected an even number$"):
        datasets.check({"name": "findmax", "channels": 5})
