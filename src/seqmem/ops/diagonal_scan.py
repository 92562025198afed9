"""The elementwise linear recurrence h_t = a_t h_{t-1} + b_t, real or complex: reference and parallel scan.

A complex number is a trailing pair of reals, or an element of a complex tensor.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from seqmem.data.masks import valid_steps
from seqmem.errors import UserError
from seqmem.ops import pairs as pairs_of_reals
from seqmem.ops.compiled_sequence import register_scan
from seqmem.ops.export import scan
from seqmem.ops.precision import at_least_float32, scan_types

Scan = Callable[..., tuple[Tensor, Tensor]]


def pairs_as_complex(function: Scan) -> Scan:
    """Decorate a scan of complex tensors to accept pairs of reals too: b (B, T, N, 2), with a and the state alike."""

    @wraps(function)
    def call(
        a: Tensor, b: Tensor, initial: Tensor | None = None, lengths: Tensor | None = None, reverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        if b.dim() != 4:
            return function(a, b, initial, lengths, reverse)
        dtype, wide = checked_types(a, b, initial)
        numbers = [None if pairs is None else torch.complex(*at_least_float32(pairs).unbind(-1)) for pairs in (a, b, initial)]
        h, final = function(*numbers, lengths, reverse)
        return torch.view_as_real(h).to(dtype), torch.view_as_real(final).to(wide)

    return call


@pairs_as_complex
def diagonal_scan_reference(
    a: Tensor, b: Tensor, initial: Tensor | None = None, lengths: Tensor | None = None, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Compute h_t = a_t h_{t-1} + b_t step by step.

    Args:
        a: (N,) for the same factors at each step, or (B, T, N).
        b: (B, T, N), real or complex; or (B, T, N, 2), pairs of real and imaginary part, and then all arguments and results
            have that trailing dimension. Half precision is computed in float32.
        initial: (B, N) the state before the first step; None for zero.
        lengths: (B,) int64 valid steps of each row; None if all T are valid.
        reverse: h_t = a_t h_{t+1} + b_t, from each row's last valid step backward in time.

    Returns:
        h, (B, T, N), zero in the padding, in the widest type of a, b and the initial state, and the state after each row's last
        step, (B, N), at least in float32. A state in float32 leaves h in half precision.

    Raises:
        UserError: shapes or types that do not match.
    """
    factors, terms, state, dtype = _prepared(a, b, initial, lengths)
    states = []
    steps = list(zip(factors.expand_as(terms).unbind(1), terms.unbind(1), strict=True))
    for a_t, b_t in reversed(steps) if reverse else steps:
        state = a_t * state + b_t
        states.append(state)
    outputs = torch.stack(states[::-1] if reverse else states, 1) if states else terms
    return _outputs(outputs, lengths, dtype), state


@pairs_as_complex
@torch.compiler.disable  # compiling the O(log T) passes takes minutes, and inductor has no complex kernels
def diagonal_scan_parallel(
    a: Tensor, b: Tensor, initial: Tensor | None = None, lengths: Tensor | None = None, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Compute :func:`diagonal_scan_reference` in O(log T) operations on whole sequences (Hillis and Steele, 1986).

    The pair (a, b) represents the map h -> a h + b. After the pass with offset d, each step holds the composition of the 2 d
    maps that end with its own. For |a| > 1 the powers of a may overflow where the reference does not.
    """
    factors, terms, state, dtype = _prepared(a, b, initial, lengths)
    steps = b.shape[1]
    if steps == 0:
        return terms.to(dtype), state
    if reverse:
        terms, factors = terms.flip(1), factors if factors.dim() == 1 else factors.flip(1)
    first = (factors if factors.dim() == 1 else factors[:, 0]) * state
    terms = torch.cat([(terms[:, 0] + first).unsqueeze(1), terms[:, 1:]], 1)
    offset = 1
    while offset < steps:
        if factors.dim() == 1:
            later = terms[:, offset:] + factors * terms[:, :-offset]
            factors = factors * factors
        else:
            later = terms[:, offset:] + factors[:, offset:] * terms[:, :-offset]
            factors = torch.cat([factors[:, :offset], factors[:, offset:] * factors[:, :-offset]], 1)
        terms = torch.cat([terms[:, :offset], later], 1)
        offset *= 2
    return _outputs(terms.flip(1) if reverse else terms, lengths, dtype), terms[:, -1]


def diagonal_scan_exported(
    a: Tensor, b: Tensor, initial: Tensor | None = None, lengths: Tensor | None = None, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Compute :func:`diagonal_scan_reference` by torch's scan operator, for exported programs of any length.

    Pairs are computed with real numbers alone, for formats without complex ones.
    """
    factors, terms, state, dtype = _prepared(a, b, initial, lengths)
    multiply = pairs_of_reals.product if b.dim() == 4 else torch.mul
    sequences = [tensor.transpose(0, 1) for tensor in (factors.expand_as(terms), terms)]
    if reverse:
        sequences = [sequence.flip(0) for sequence in sequences]

    def step(parts: list[Tensor], items: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        h = multiply(items[0], parts[0]) + items[1]
        return [h], h.clone()

    [last], states = scan(step, [state.clone()], [sequence.clone() for sequence in sequences])
    states = states.flip(0) if reverse else states
    return _outputs(states.transpose(0, 1), lengths, dtype), last


def diagonal_scan(
    a: Tensor, b: Tensor, initial: Tensor | None = None, lengths: Tensor | None = None, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Compute :func:`diagonal_scan_reference` in one call, in ``csrc/scan.cpp``. Differentiable once."""
    dtype, wide = checked_types(a, b, initial)
    given = [None if tensor is None else tensor.to(wide) for tensor in (a, b, initial)]
    if wide.is_complex:
        pairs = [None if tensor is None else torch.view_as_real(tensor.resolve_conj()) for tensor in given]
        h, final = torch.ops.seqmem.diagonal_scan(*pairs, lengths, reverse)
        return torch.view_as_complex(h).to(dtype), torch.view_as_complex(final)
    h, final = torch.ops.seqmem.diagonal_scan(*given, lengths, reverse)
    return h.to(dtype), final


def checked_types(a: Tensor, b: Tensor, initial: Tensor | None) -> tuple[torch.dtype, torch.dtype]:
    """Refuse shapes that do not match, and return the types of h and of the states, see :func:`scan_types`."""
    # Shapes of different rank are not compared: an exported program would refuse as many rows as the state has numbers.
    expected_a = b.shape if a.dim() == b.dim() else b.shape[2:]
    if b.dim() not in (3, 4) or b.shape[3:] not in ((), (2,)) or a.shape != expected_a:
        raise UserError(
            f"diagonal_scan: got a of shape {tuple(a.shape)} and b of shape {tuple(b.shape)}, expected b (B, T, N) and a (N,) "
            "or (B, T, N), or b (B, T, N, 2) and a (N, 2) or (B, T, N, 2)"
        )
    expected = (b.shape[0], *b.shape[2:])
    if initial is not None and initial.shape != expected:
        raise UserError(f"diagonal_scan: got initial of shape {tuple(initial.shape)}, expected {expected}")
    return scan_types(a, b, initial=initial)


def _prepared(
    a: Tensor, b: Tensor, initial: Tensor | None, lengths: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, torch.dtype]:
    """Return factors, terms and the initial state, and the type of h.

    In the padding a factor of 1 and a term of 0 keep the state.
    """
    dtype, wide = checked_types(a, b, initial)
    a, b = a.to(wide), b.to(wide)
    state = b.new_zeros(b.shape[0], *b.shape[2:]) if initial is None else initial.to(wide)
    if lengths is None:
        return a, b, state, dtype
    valid = _mask(lengths, b)
    one = 1 if b.dim() == 3 else torch.arange(1, -1, -1, dtype=wide, device=b.device)  # (1, 0) as a pair
    return torch.where(valid, a, one), torch.where(valid, b, 0), state, dtype


def _mask(lengths: Tensor, b: Tensor) -> Tensor:
    return valid_steps(lengths, b.shape[1]).view(*b.shape[:2], *[1] * (b.dim() - 2))


def _outputs(states: Tensor, lengths: Tensor | None, dtype: torch.dtype) -> Tensor:
    states = states if lengths is None else states.where(_mask(lengths, states), 0)
    return states.to(dtype)


def _shapes(a: Tensor, b: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return b.new_empty(b.shape), b.new_empty(b.shape[0], *b.shape[2:])


def _gradient_shapes(grad_h: Any, grad_final: Any, a: Tensor, h: Tensor, *others: Any) -> list[Tensor]:
    a_gradient = others[-1]
    return [a.new_empty(a.shape if a_gradient else 0), h.new_empty(h.shape), h.new_empty(h.shape[0], *h.shape[2:])]


register_scan("diagonal_scan", _shapes, _gradient_shapes)
