"""The noisy sinusoids against their formula."""

import math

import numpy as np
import pytest
import torch

from seqmem import datasets
from seqmem.errors import UserError

SMALL = {"name": "sinusoids", "train_samples": 40, "validation_samples": 3, "test_samples": 5}


def everything(data, split):
    return data.batch(split, torch.arange(data.sizes[split]))


@pytest.mark.parametrize(("horizon", "channels"), [(1, 3), (41, 1)])
def test_targets_are_the_future_of_the_inputs(horizon, channels):
    data = datasets.load({**SMALL, "horizon": horizon, "channels": channels, "length": 83})
    assert (data.spec.input_size, data.spec.output_size, data.spec.output_steps) == (channels, channels, None)
    assert data.spec.max_length == 83 - horizon
    for split in datasets.SPLITS:
        batch = everything(data, split)
        assert batch.inputs.shape == batch.targets.shape == (data.sizes[split], 83 - horizon, channels)
        assert torch.equal(batch.inputs[:, horizon:], batch.targets[:, :-horizon])


@pytest.mark.parametrize(("channels", "noise"), [(2, 0.0), (3, 1.7)])
def test_the_residual_of_two_sinusoids_is_the_noise(channels, noise):
    """x has 400 samples from 0 to 50 pi, as in numpy.linspace; a sine of any phase is a sum of sine and cosine."""
    data = datasets.load({**SMALL, "channels": channels, "noise": noise, "horizon": 1})
    batch = everything(data, "train")
    signals = torch.cat([batch.inputs, batch.targets[:, -1:]], 1).double().numpy()
    x = np.linspace(0, 50 * np.pi, 400)
    basis = np.stack([np.sin(0.6 * x), np.cos(0.6 * x), np.sin(0.1 * x), np.cos(0.1 * x)], 1)
    columns = signals.transpose(1, 0, 2).reshape(400, -1)
    weights = np.linalg.lstsq(basis, columns, rcond=None)[0]
    rest = columns - basis @ weights
    assert rest.var() * 400 / 396 == pytest.approx(noise**2, rel=0.05, abs=1e-10)
    for scale, pair in zip((2, 5), (weights[:2], weights[2:]), strict=True):
        assert np.hypot(*pair) == pytest.approx(scale, abs=1e-5 + noise)
        # All signals and channels have different phases.
        assert len(np.unique(np.arctan2(*pair).round(9))) == columns.shape[1]
    assert data.spec.irreducible_error == noise**2
    assert data.describe()["irreducible_error"] == noise**2


def test_noise_is_independent_between_steps_and_channels():
    data, clean = (datasets.load({**SMALL, "channels": 2, "noise": noise}) for noise in (1.0, 0.0))
    noise = (everything(data, "train").inputs - everything(clean, "train").inputs).double()
    assert noise.std().item() == pytest.approx(1, abs=0.02)
    assert abs((noise[..., 0] * noise[..., 1]).mean()) < 0.03
    assert abs((noise[:, 1:] * noise[:, :-1]).mean()) < 0.03


def test_a_longer_signal_continues_the_same_waves():
    short, long = (datasets.load({**SMALL, "noise": 0.0, "length": length}) for length in (50, 90))
    torch.testing.assert_close(everything(long, "test").inputs[:, :47], everything(short, "test").inputs)


def test_the_waves_without_noise_have_the_irreducible_error():
    noisy, clean = (datasets.load({**SMALL, "noise": noise, "channels": 2}) for noise in (0.5, 0.0))
    error = (everything(noisy, "train").targets - everything(clean, "train").targets).square().mean()
    terms = everything(noisy, "train").targets.numel()
    assert error.item() == pytest.approx(0.25, abs=5 * 0.25 * math.sqrt(2 / terms))


def test_wrong_values_are_refused():
    for arguments, message in (
        ({"horizon": 0}, r"dataset\.horizon: got 0"),
        ({"horizon": 400}, r"dataset\.horizon: got 400, expected less than dataset\.length=400"),
        ({"channels": 0}, r"dataset\.channels: got 0"),
        ({"noise": -0.5}, r"dataset\.noise: got -0\.5"),
        ({"length": 1}, r"dataset\.horizon: got 3, expected less than dataset\.length=1"),
    ):
        with pytest.raises(UserError, match=message):
            datasets.load({**SMALL, **arguments})
