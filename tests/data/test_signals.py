"""Band-limited white noise: its spectrum, its size, and the signals of given amplitudes."""

import doctest

import numpy as np
import pytest
import torch

from seqmem.data import signals
from seqmem.errors import UserError


def test_the_example_in_the_docstring():
    assert doctest.testmod(signals, extraglobs={"torch": torch}).failed == 0


def test_white_noise_is_flat_below_its_limit():
    for length in [201, 200]:
        assert signals.white_noise(length, 30, seed=0).square().mean().item() == pytest.approx(0.25)
        power = (
            torch.fft.rfft(torch.stack([signals.white_noise(length, 30, seed) for seed in range(200)])).abs().square().mean(0)
        )
        assert power[1:31].max() / power[1:31].min() < 2.2
        assert max(power[0], power[31:].max()) < 1e-20 * power[1]


def test_a_signal_is_the_sum_of_its_oscillations():
    amplitudes = np.array([[0.3 - 0.1j, 0.0, -0.2j]])
    t = np.arange(11)
    expected = sum(2 * (a * np.exp(2j * np.pi * k * t / 11)).real for k, a in enumerate(amplitudes[0], start=1))
    np.testing.assert_allclose(signals.synthesize(amplitudes, 11)[0], expected, atol=1e-15)


def test_endings_are_the_ends_of_the_signals():
    amplitudes = signals.draw_amplitudes(3, 7, seed=5)
    np.testing.assert_allclose(signals.endings(amplitudes, 300, 41), signals.synthesize(amplitudes, 300)[:, -41:], atol=1e-13)
    assert signals.endings(amplitudes, 20, 41).shape == (3, 20)


def test_a_signal_that_cannot_be_sampled_is_refused():
    with pytest.raises(UserError, match="frequency: got 0, expected at least 1 oscillation"):
        signals.white_noise(10, 0, seed=0)
    with pytest.raises(UserError, match="length: got 10 samples, expected more than 10 for 5 oscillations"):
        signals.white_noise(10, 5, seed=0)
