"""The toy signals against their formula."""

import numpy as np
import pytest
import torch

from seqmem import datasets
from seqmem.errors import UserError

SMALL = {"name": "phase_signals", "train_samples": 400, "validation_samples": 3, "test_samples": 5}


@pytest.mark.parametrize("stride", [1, 3])
def test_inputs_and_targets_are_their_formula(stride):
    data = datasets.load({**SMALL, "stride": stride})
    batch = data.batch("train", torch.arange(400))
    assert (data.spec.input_size, data.spec.output_size, data.spec.max_length) == (2, 1, 40)
    assert set(batch.lengths.tolist()) == set(range(20, 41))
    grid = np.linspace(0, 150, 1000)
    target_lengths = batch.lengths if stride == 1 else batch.target_lengths
    for x, y, length, count in zip(batch.inputs, batch.targets, batch.lengths, target_lengths, strict=True):
        start = int(np.abs(2 * np.sin(grid) - x[0, 0].item()).__add__(np.abs(2 * np.cos(grid) - x[0, 1].item())).argmin())
        t = grid[start : start + length]
        assert len(t) == length
        np.testing.assert_allclose(x[:length], np.stack([2 * np.sin(t), 2 * np.cos(t)], 1), atol=1e-5)
        full = (2 * np.sin(t) + 2 * np.cos(t))[::stride]
        assert len(full) == count
        np.testing.assert_allclose(y[:count, 0], full, atol=1e-5)
        assert not x[length:].any()
        assert not y[count:].any()


def test_wrong_lengths_are_refused():
    for arguments in ({"shortest": 41}, {"longest": 1000}):
        with pytest.raises(UserError, match=r"dataset\.longest: got .*, expected between"):
            datasets.load({**SMALL, **arguments})
