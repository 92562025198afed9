"""The elementwise linear recurrence h_t = a_t h_{t-1} + b_t, real or complex: reference and parallel scan."""

import torch
from torch import Tensor

from seqmem.data.masks import valid_steps
from seqmem.errors import UserError
from seqmem.ops.export import scan


def diagonal_scan_reference(
    a: Tensor, b: Tensor, initial: Tensor | None = None, lengths: Tensor | None = None, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Compute h_t = a_t h_{t-1} + b_t step by step.

    Args:
        a: (N,) for the same factors at each step, or (B, T, N).
        b: (B, T, N), real or complex. The results have the type of a, b and the initial state, the widest of them; half
            precision is computed in float32.
        initial: (B, N) the state before the first step; None for zero.
        lengths: (B,) int64 valid steps of each row; None if all T are valid.
        reverse: h_t = a_t h_{t+1} + b_t, from each row's last valid step backward in time.

    Returns:
        h, (B, T, N), zero in the padding, and the state after each row's last step, (B, N).

    Raises:
        UserError: shapes or types that do not match.
    """
    factors, terms, state, dtype = _prepared(a, b, initial, lengths)
    states = []
    for t in reversed(range(b.shape[1])) if reverse else range(b.shape[1]):
        state = (factors if factors.dim() == 1 else factors[:, t]) * state + terms[:, t]
        states.append(state)
    outputs = torch.stack(states[::-1] if reverse else states, 1) if states else terms
    return _outputs(outputs, lengths, dtype), state.to(dtype)


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
        return terms.to(dtype), state.to(dtype)
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
    return _outputs(terms.flip(1) if reverse else terms, lengths, dtype), terms[:, -1].to(dtype)


def diagonal_scan_exported(
    a: Tensor, b: Tensor, initial: Tensor | None = None, lengths: Tensor | None = None, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Compute :func:`diagonal_scan_reference` by torch's scan operator, for exported programs of any length."""
    factors, terms, state, dtype = _prepared(a, b, initial, lengths)
    factors = factors.expand_as(terms)
    sequences = [tensor.transpose(0, 1) for tensor in (factors, terms)]
    if reverse:
        sequences = [sequence.flip(0) for sequence in sequences]

    def step(parts: list[Tensor], items: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        h = items[0] * parts[0] + items[1]
        return [h], h.clone()

    [last], states = scan(step, [state.clone()], [sequence.clone() for sequence in sequences])
    states = states.flip(0) if reverse else states
    return _outputs(states.transpose(0, 1), lengths, dtype), last.to(dtype)


def complex_scan_exported(
    a: tuple[Tensor, Tensor], b: Tensor, lengths: Tensor | None = None
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Compute :func:`diagonal_scan_exported` from a zero state with real numbers alone, for formats without complex ones.

    Args:
        a: real and imaginary part (N,) of the factors.
        b: (B, T, N), real.
        lengths: as for :func:`diagonal_scan_reference`.

    Returns:
        Real and imaginary part of h, (B, T, N), and of the state after each row's last step, (B, N).
    """
    valid = torch.ones_like(b[..., :1]) if lengths is None else valid_steps(lengths, b.shape[1])[..., None].to(b)
    sequences = [valid.transpose(0, 1), b.transpose(0, 1)]

    def step(parts: list[Tensor], items: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        (real, imaginary), (here, term) = parts, items
        after = [a[0] * real - a[1] * imaginary + term, a[0] * imaginary + a[1] * real]
        after = [here * new + (1 - here) * old for new, old in zip(after, parts, strict=True)]
        return after, torch.stack(after)

    zeros = [torch.zeros_like(b[:, 0]), torch.zeros_like(b[:, 0])]
    last, states = scan(step, zeros, [sequence.clone() for sequence in sequences])
    real, imaginary = (part.transpose(0, 1) * valid for part in states.unbind(1))
    return (real, imaginary), (last[0], last[1])


def _prepared(
    a: Tensor, b: Tensor, initial: Tensor | None, lengths: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, torch.dtype]:
    """Return factors, terms and the initial state, and the type of the results.

    In the padding a factor of 1 and a term of 0 keep the state.
    """
    if b.dim() != 3 or a.shape not in (b.shape, b.shape[2:]):
        raise UserError(
            f"diagonal_scan: got a of shape {tuple(a.shape)} and b of shape {tuple(b.shape)}, expected b (B, T, N) and a (N,) "
            "or (B, T, N)"
        )
    if initial is not None and initial.shape != (b.shape[0], b.shape[2]):
        raise UserError(f"diagonal_scan: got initial of shape {tuple(initial.shape)}, expected {(b.shape[0], b.shape[2])}")
    dtype = torch.promote_types(a.dtype, b.dtype)
    dtype = dtype if initial is None else torch.promote_types(dtype, initial.dtype)
    wide = torch.promote_types(dtype, torch.float32)
    a, b = a.to(wide), b.to(wide)
    state = b.new_zeros(b.shape[0], b.shape[2]) if initial is None else initial.to(wide)
    if lengths is None:
        return a, b, state, dtype
    valid = valid_steps(lengths, b.shape[1])[..., None]
    return torch.where(valid, a, 1), torch.where(valid, b, 0), state, dtype


def _outputs(states: Tensor, lengths: Tensor | None, dtype: torch.dtype) -> Tensor:
    states = states if lengths is None else states.where(valid_steps(lengths, states.shape[1])[..., None], 0)
    return states.to(dtype)
