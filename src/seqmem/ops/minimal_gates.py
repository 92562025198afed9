"""The gates and the recurrence of minGRU and minLSTM: reference and parallel scan.

Feng et al., "Were RNNs All We Needed?" (2024), sections 3.1 and 3.2, and appendix A for the activation of the candidate.
"""

from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from seqmem.data.masks import masked
from seqmem.errors import UserError, check_choice
from seqmem.ops.compiled_sequence import register_scan
from seqmem.ops.diagonal_scan import diagonal_scan_exported, diagonal_scan_parallel, diagonal_scan_reference
from seqmem.ops.precision import at_least_float32, scan_types

MinimalGates = Literal["gru", "lstm", "lstm_raw"]


def minimal_gates_reference(
    projected: Tensor, initial: Tensor | None = None, lengths: Tensor | None = None, gates: MinimalGates = "gru"
) -> tuple[Tensor, Tensor]:
    """Compute h_t = a_t h_{t-1} + i_t g(k_h) step by step, with g(k) = k + 1/2 for k >= 0 and sigmoid(k) below.

    ===========  ===================  =====================
    gates        a                    i
    ===========  ===================  =====================
    gru          sigmoid(-k_z)        sigmoid(k_z)
    lstm         f / (f + i')         i' / (f + i')
    lstm_raw     f                    i'
    ===========  ===================  =====================

    with f = sigmoid(k_f) and i' = sigmoid(k_i).

    Args:
        projected: (B, T, 2 E), k_h and k_z; with the gates of an LSTM (B, T, 3 E), k_h, k_f and k_i. Half precision is computed
            in float32.
        initial: (B, E) the state before the first step; None for zero.
        lengths: (B,) int64 valid steps of each row; None if all T are valid.
        gates: gru, lstm or lstm_raw.

    Returns:
        h, (B, T, E), zero in the padding, and the state after each row's last valid step, (B, E), at least in float32.

    Raises:
        UserError: shapes that do not match, or other gates.
    """
    return _scanned(diagonal_scan_reference, projected, initial, lengths, gates)


def minimal_gates_parallel(
    projected: Tensor, initial: Tensor | None = None, lengths: Tensor | None = None, gates: MinimalGates = "gru"
) -> tuple[Tensor, Tensor]:
    """Compute :func:`minimal_gates_reference` by :func:`seqmem.ops.diagonal_scan.diagonal_scan_parallel`."""
    return _scanned(diagonal_scan_parallel, projected, initial, lengths, gates)


def minimal_gates_exported(
    projected: Tensor, initial: Tensor | None = None, lengths: Tensor | None = None, gates: MinimalGates = "gru"
) -> tuple[Tensor, Tensor]:
    """Compute :func:`minimal_gates_reference` by torch's scan operator, for exported programs of any length."""
    return _scanned(diagonal_scan_exported, projected, initial, lengths, gates)


def minimal_gates_scan(
    projected: Tensor, initial: Tensor | None = None, lengths: Tensor | None = None, gates: MinimalGates = "gru"
) -> tuple[Tensor, Tensor]:
    """Compute :func:`minimal_gates_reference` in one call, in ``csrc/scan_gates.cpp``. Differentiable once."""
    dtype, wide = checked_types(projected, initial, gates)
    state = None if initial is None else initial.to(wide)
    h, final = torch.ops.seqmem.minimal_gates(projected.to(wide), state, lengths, gates)
    return h.to(dtype), final


def candidate_activation(k: Tensor) -> Tensor:
    """Compute g(k), which is positive; its slope at 0 is 1."""
    return torch.where(k >= 0, k + 0.5, torch.sigmoid(k))


def _scanned(
    scan: Any, projected: Tensor, initial: Tensor | None, lengths: Tensor | None, gates: MinimalGates
) -> tuple[Tensor, Tensor]:
    dtype, _ = checked_types(projected, initial, gates)
    a, b = _factors_and_terms(at_least_float32(masked(projected, lengths)), gates)
    h, final = scan(a, b, initial, lengths)
    return h.to(dtype), final


def checked_types(projected: Tensor, initial: Tensor | None, gates: MinimalGates) -> tuple[torch.dtype, torch.dtype]:
    """Refuse other gates and shapes that do not match, and return the types of h and of the states."""
    check_choice("gates", gates, get_args(MinimalGates))
    count = 2 if gates == "gru" else 3
    if projected.dim() != 3 or projected.shape[2] % count:
        raise UserError(f"minimal_gates: got projected of shape {tuple(projected.shape)}, expected (B, T, {count} E)")
    shape = (projected.shape[0], projected.shape[2] // count)
    if initial is not None and initial.shape != shape:
        raise UserError(f"minimal_gates: got initial of shape {tuple(initial.shape)}, expected {shape}")
    return scan_types(projected, initial=initial)


def _factors_and_terms(projected: Tensor, gates: MinimalGates) -> tuple[Tensor, Tensor]:
    if gates == "gru":
        k_h, k_z = projected.chunk(2, -1)
        return torch.sigmoid(-k_z), torch.sigmoid(k_z) * candidate_activation(k_h)
    k_h, k_f, k_i = projected.chunk(3, -1)
    if gates == "lstm_raw":
        return torch.sigmoid(k_f), torch.sigmoid(k_i) * candidate_activation(k_h)
    difference = logsigmoid(k_i) - logsigmoid(k_f)  # ln(i' / f); torch's softplus is rounded to its input beyond 20
    return torch.sigmoid(-difference), torch.sigmoid(difference) * candidate_activation(k_h)


def _shapes(projected: Tensor, initial: Any, lengths: Any, gates: str) -> tuple[Tensor, Tensor]:
    batch, steps, size = projected.shape
    size //= 2 if gates == "gru" else 3
    return projected.new_empty(batch, steps, size), projected.new_empty(batch, size)


def _gradient_shapes(grad_h: Any, grad_final: Any, projected: Tensor, h: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return projected.new_empty(projected.shape), h.new_empty(h.shape[0], h.shape[2])


register_scan("minimal_gates", _shapes, _gradient_shapes)
