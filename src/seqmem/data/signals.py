"""Band-limited white noise: random amplitudes at the lowest frequencies, and the signals that have them.

A signal of T samples is the sum of its oscillations k = 1 ... F over the whole length, 2 Re(a_k exp(2 pi i k t / T)) at sample
t. It is periodic and has mean 0.
"""

import numpy as np
import torch
from torch import Tensor

from seqmem.errors import UserError


def scale_amplitudes(normals: np.ndarray, rms: float) -> np.ndarray:
    """Scale random amplitudes so that every signal has the same root mean square.

    Args:
        normals: (n, F) complex, independent normal numbers of equal variance.
        rms: root mean square of each signal.

    Returns:
        (n, F) complex.
    """
    # Parseval: an amplitude a stands for a exp(i k x) and its conjugate.
    return normals * rms / np.sqrt(2 * (np.abs(normals) ** 2).sum(-1, keepdims=True))


def draw_amplitudes(count: int, frequency: int, seed: int, rms: float = 0.5) -> np.ndarray:
    """Draw the amplitudes of ``count`` signals with torch's generator.

    Args:
        count: n, number of signals.
        frequency: F, the highest number of oscillations over the signal.
        seed: seed of the generator.
        rms: root mean square of each signal.

    Returns:
        (n, F) complex128.

    Raises:
        UserError: ``frequency`` is less than 1.
    """
    if frequency < 1:
        raise UserError(f"frequency: got {frequency}, expected at least 1 oscillation over the signal")
    normals = torch.randn(count, frequency, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))
    return scale_amplitudes(normals.numpy(), rms)


def synthesize(amplitudes: np.ndarray, length: int) -> np.ndarray:
    """Compute the signals of given amplitudes.

    Args:
        amplitudes: (n, F) complex.
        length: T, samples of a signal, more than 2 F.

    Returns:
        (n, T) float64.

    Raises:
        UserError: ``length`` is too short for F oscillations.
    """
    count, frequency = amplitudes.shape
    if length <= 2 * frequency:
        raise UserError(f"length: got {length} samples, expected more than {2 * frequency} for {frequency} oscillations")
    spectrum = np.zeros((count, length // 2 + 1), complex)
    spectrum[:, 1 : frequency + 1] = amplitudes
    return np.fft.irfft(spectrum, length, norm="forward")


def endings(amplitudes: np.ndarray, length: int, count: int) -> np.ndarray:
    """Compute the last samples of the signals of :func:`synthesize` alone.

    Args:
        amplitudes: (n, F) complex.
        length: T, samples of a whole signal.
        count: number of samples, cut to T.

    Returns:
        (n, min(count, T)) float64.
    """
    moments = np.arange(max(0, length - count), length)
    phases = np.outer(np.arange(1, amplitudes.shape[1] + 1), moments) * (2 * np.pi / length)
    return 2 * (amplitudes.real @ np.cos(phases) - amplitudes.imag @ np.sin(phases))


def white_noise(length: int, frequency: int, seed: int, rms: float = 0.5) -> Tensor:
    """Draw one signal of band-limited white noise.

    Args:
        length: T, samples of the signal, more than 2 ``frequency``.
        frequency: F, the highest number of oscillations over the signal.
        seed: seed of the amplitudes.
        rms: root mean square of the signal, whose mean is 0.

    Returns:
        (T,) float64.

    Raises:
        UserError: ``frequency`` is less than 1, or ``length`` too short for it.

    >>> white_noise(8, 1, seed=0).square().mean().sqrt()
    tensor(0.5000, dtype=torch.float64)
    """
    return torch.from_numpy(synthesize(draw_amplitudes(1, frequency, seed, rms), length)[0])
