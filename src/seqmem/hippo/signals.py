"""The signals that memories are tried on."""

import torch
from torch import Tensor

from seqmem.errors import UserError


def white_noise(length: int, frequency: int, seed: int, rms: float = 0.5) -> Tensor:
    """Band-limited white noise: normal amplitudes of equal variance at 1, 2, ... ``frequency`` oscillations over the signal.

    Args:
        length: T, in samples.
        frequency: the highest number of oscillations over the whole signal.
        seed: of the amplitudes.
        rms: root mean square of the signal, whose mean is 0.

    Returns:
        (T,) float64.

    Raises:
        UserError: a frequency that is not positive, or that so few samples cannot hold.

    >>> white_noise(8, 1, seed=0).square().mean().sqrt()
    tensor(0.5000, dtype=torch.float64)
    """
    return synthesize(spectra(1, frequency, seed, rms), length)[0]


def spectra(count: int, frequency: int, seed: int, rms: float = 0.5) -> Tensor:
    """The amplitudes of :func:`white_noise` for so many signals: (count, frequency) complex."""
    if frequency < 1:
        raise UserError(f"the highest frequency must be at least 1 oscillation over the signal, got {frequency}")
    drawn = torch.randn(count, frequency, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))
    # Parseval: an amplitude a stands for a exp(i k x) and its conjugate.
    return drawn * rms / (2 * drawn.abs().square().sum(-1, keepdim=True)).sqrt()


def synthesize(amplitudes: Tensor, length: int) -> Tensor:
    """The signals (count, length) that have these amplitudes (count, frequency)."""
    if length <= 2 * amplitudes.shape[-1]:
        raise UserError(f"{amplitudes.shape[-1]} oscillations need more than {2 * amplitudes.shape[-1]} samples, got {length}")
    spectrum = amplitudes.new_zeros(len(amplitudes), length // 2 + 1)
    spectrum[:, 1 : amplitudes.shape[-1] + 1] = amplitudes
    return torch.fft.irfft(spectrum, length, norm="forward")
