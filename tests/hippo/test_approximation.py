"""Reading a signal into a few numbers and reconstructing all of it: the read-out of a network that is not trained."""

import torch
from torch.testing import assert_close

from seqmem.data.signals import white_noise
from seqmem.hippo import Memory, project, reconstruct
from seqmem.hippo.approximation import LSTM_MEMORY, apply_read_out, approximate, fit_read_out, last_hidden


def test_samples_before_a_window_are_zero():
    signal = white_noise(90, 5, seed=0)
    memory = Memory(12, "lmu", 31)
    coefficients = project(signal, 12, "lmu", 31)
    made = approximate(coefficients, 90, memory)
    assert (made[:59] == 0).all()
    assert_close(made[59:], reconstruct(coefficients, 90, "lmu", 31))


def test_an_lstm_of_initial_weights_forgets():
    torch.manual_seed(1)
    network = torch.nn.LSTM(1, 64, batch_first=True).double()
    signal = white_noise(3000, 40, seed=2)[None]
    assert_close(last_hidden(network, signal), last_hidden(network, signal[:, -LSTM_MEMORY:]), rtol=0, atol=1e-14)


def test_chunks_of_a_signal_are_read_like_the_whole(monkeypatch):
    torch.manual_seed(0)
    network, signals = torch.nn.LSTM(1, 5, batch_first=True), torch.randn(3, 100)
    whole = last_hidden(network, signals)
    monkeypatch.setattr("seqmem.hippo.approximation.CHUNK", 33)
    assert_close(last_hidden(network, signals), whole)
    assert whole.shape == (3, 5)
    assert whole.dtype == torch.float64
    assert not whole.requires_grad


def test_a_read_out_finds_a_linear_map_and_a_constant():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(200, 12, dtype=torch.float64, generator=generator)
    weights = torch.randn(12, 4, dtype=torch.float64, generator=generator)
    with torch.device("meta"):  # a default device has no influence
        fitted = fit_read_out(states, states @ weights + 3)
    assert_close(fitted[:-1], weights, rtol=0, atol=1e-6)
    assert_close(apply_read_out(states[:5], fitted), states[:5] @ weights + 3, rtol=0, atol=1e-5)
    noise = torch.randn(200, 4, dtype=torch.float64, generator=generator)
    assert fit_read_out(states, noise).norm() < 0.5  # nothing to learn: the penalty keeps the weights small
