"""Band-limited white noise as a data set: its band, its size, and the amplitudes of a seed."""

import pytest
import torch
from torch.testing import assert_close

from seqmem import datasets
from seqmem.errors import UserError


def test_signals_have_the_requested_band_and_size():
    data = datasets.load({"name": "white_noise", "length": 301, "frequency": 7, "rms": 2.0, "train_samples": 5})
    signals = data.batch("train", torch.arange(5)).inputs[..., 0].double()
    assert_close(signals.square().mean(1).sqrt(), torch.full((5,), 2.0).double(), rtol=1e-5, atol=0)
    power = torch.fft.rfft(signals).abs()
    assert (power[:, 1:8] > 1e-3).all()
    assert power[:, [0, *range(8, 151)]].max() < 1e-3
    with pytest.raises(UserError, match=r"dataset\.length: got 14, expected more than 14"):
        datasets.load({"name": "white_noise", "length": 14, "frequency": 7})


def test_the_signals_of_a_seed_do_not_change():
    data = datasets.load({"name": "white_noise", "length": 50, "frequency": 5, "train_samples": 3})
    first = data.batch("train", torch.arange(1)).inputs[0, :3, 0]
    assert_close(first, torch.tensor([0.79219580, 0.56237423, 0.18446241]), rtol=1e-6, atol=0)
