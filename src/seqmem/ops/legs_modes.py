"""Modes of HiPPO-LegS without its rank-one part: initial values of diagonal state space models."""

import torch
from torch import Tensor

from seqmem.ops.constants import on_device
from seqmem.ops.transition import transition


def legs_modes(order: int) -> tuple[Tensor, Tensor]:
    """Diagonalise A + p p^T of LegS with p_n = sqrt(n + 1/2), a normal matrix (Gu, Goel and Re, 2022, theorem 1).

    All eigenvalues have the real part -1/2. They are pairs of conjugates, and for an odd order also -1/2 itself.

    Args:
        order: N.

    Returns:
        The positive imaginary parts in ascending order, (N // 2,), and their eigenvectors as columns (N, N // 2), complex. An
        eigenvector has length 1 and is determined up to a unit factor. float64, on the CPU.
    """
    frequencies, vectors = _all_modes(order)
    return frequencies[-(-order // 2) :], vectors[:, -(-order // 2) :]


def legs_real_mode(order: int) -> Tensor:
    """Return the real eigenvector of the eigenvalue -1/2 for an odd order N, (N, 1), complex, of length 1."""
    vector = _all_modes(order)[1][:, order // 2, None]
    largest = vector[vector.abs().argmax()]
    return (vector * largest.conj() / largest.abs()).real.to(vector.dtype)


def _all_modes(order: int) -> tuple[Tensor, Tensor]:
    """Return all imaginary parts (N,) in ascending order and the eigenvectors (N, N); the caller may change them."""
    frequencies, vectors = _decomposed(torch.empty(0, dtype=torch.float64, device="cpu"), order)
    return frequencies.clone(), vectors.clone()


@on_device
def _decomposed(order: int) -> tuple[Tensor, Tensor]:
    a, b = transition("legs", order)
    skew = a + torch.outer(b, b) / 2 + torch.eye(order, dtype=torch.float64) / 2
    frequencies, vectors = torch.linalg.eigh(-1j * skew)
    return frequencies, vectors
