"""The recurrence of forced harmonic oscillators, discretised as in LinOSS: reference and parallel scan.

Rusch and Rus, "Oscillatory State-Space Models" (2025), equations 3 to 6.
"""

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from seqmem.data.masks import masked
from seqmem.errors import UserError, check_choice
from seqmem.ops.compiled_sequence import register_scan
from seqmem.ops.export import scan
from seqmem.ops.precision import scan_types

OscillatorMethod = Literal["im", "imex"]


def oscillator_scan_reference(
    stiffness: Tensor,
    step: Tensor,
    driven: Tensor,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    method: OscillatorMethod = "im",
) -> tuple[Tensor, Tensor]:
    """Compute the velocities z' = u - A y and positions y' = z of P oscillators step by step.

    The implicit method im solves y_t = y_{t-1} + dt z_t and z_t = z_{t-1} + dt (u_t - A y_t); imex takes
    z_t = z_{t-1} + dt (u_t - A y_{t-1}) first, which is stable while dt^2 A < 4.

    Args:
        stiffness: A, (P,), at least 0.
        step: dt, (P,), above 0.
        driven: u, (B, T, P, 2), pairs of real and imaginary part, as the results. Half precision is computed in float32.
        initial: (B, 2, P, 2) velocity and position before the first step; None for zero.
        lengths: (B,) int64 valid steps of each row; None if all T are valid.
        method: im or imex.

    Returns:
        positions (B, T, P, 2), zero in the padding, and velocity and position after each row's last valid step, (B, 2, P, 2),
        at least in float32.

    Raises:
        UserError: shapes that do not match, or another method.
    """
    a, dt, u, state, dtype = _prepared(stiffness, step, driven, initial, lengths, method)
    a, dt = a[:, None], dt[:, None]
    z, y = state.unbind(1)
    states = [state]
    for u_t in u.unbind(1):
        if method == "im":
            y = (y + dt * (z + dt * u_t)) / (1 + dt.square() * a)
            z = z + dt * (u_t - a * y)
        else:
            z = z + dt * (u_t - a * y)
            y = y + dt * z
        states.append(torch.stack([z, y], 1))
    return _results(torch.stack(states, 1), lengths, dtype)


@torch.compiler.disable  # compiling the O(log T) passes takes minutes
def oscillator_scan_parallel(
    stiffness: Tensor,
    step: Tensor,
    driven: Tensor,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    method: OscillatorMethod = "im",
) -> tuple[Tensor, Tensor]:
    """Compute :func:`oscillator_scan_reference` in O(log T) operations on whole sequences (Hillis and Steele, 1986)."""
    a, dt, u, state, dtype = _prepared(stiffness, step, driven, initial, lengths, method)
    matrix, gains = transition(a, dt, method)
    # The state before the first step is the first term: (B, T + 1, 2, P, 2).
    terms = torch.cat([state.unsqueeze(1), gains[..., None] * u.unsqueeze(2)], 1)
    offset = 1
    while offset < terms.shape[1]:
        later = terms[:, offset:] + torch.einsum("jkp,btkpc->btjpc", matrix, terms[:, :-offset])
        terms = torch.cat([terms[:, :offset], later], 1)
        matrix = torch.einsum("jkp,klp->jlp", matrix, matrix)
        offset *= 2
    return _results(terms, lengths, dtype)


def oscillator_scan_exported(
    stiffness: Tensor,
    step: Tensor,
    driven: Tensor,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    method: OscillatorMethod = "im",
) -> tuple[Tensor, Tensor]:
    """Compute :func:`oscillator_scan_reference` by torch's scan operator, for exported programs of any length."""
    a, dt, u, state, dtype = _prepared(stiffness, step, driven, initial, lengths, method)
    matrix, gains = transition(a, dt, method)

    def advance(parts: list[Tensor], items: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        after = (matrix[..., None] * parts[0].unsqueeze(1)).sum(2) + gains[..., None] * items[0].unsqueeze(1)
        return [after], after.clone()

    _, states = scan(advance, [state.clone()], [u.transpose(0, 1).clone()])
    return _results(torch.cat([state.unsqueeze(1), states.transpose(0, 1)], 1), lengths, dtype)


def oscillator_scan(
    stiffness: Tensor,
    step: Tensor,
    driven: Tensor,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    method: OscillatorMethod = "im",
) -> tuple[Tensor, Tensor]:
    """Compute :func:`oscillator_scan_reference` in one call, in ``csrc/scan_oscillators.cpp``. Differentiable once."""
    dtype, wide = checked_types(stiffness, step, driven, initial, method)
    coefficients = unified(stiffness.to(wide), step.to(wide), method)
    given = (coefficients, driven.to(wide), None if initial is None else initial.to(wide))
    gradient = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in given)
    positions, final, _ = torch.ops.seqmem.oscillators(*given, lengths, gradient)
    return positions.to(dtype), final


def unified(stiffness: Tensor, step: Tensor, method: OscillatorMethod) -> Tensor:
    """Return lead, A, c and dt, (4, P), with which both methods are z' = z + c (u - A (y + lead z)) and y' = y + dt z'."""
    lead, gain = torch.zeros_like(step), step
    if method == "im":
        lead, gain = step, step / (1 + step.square() * stiffness)
    return torch.stack([lead, stiffness, gain, step])


def transition(stiffness: Tensor, step: Tensor, method: OscillatorMethod) -> tuple[Tensor, Tensor]:
    """Return the matrices (2, 2, P) that map velocity and position to those of the next step, and the gains (2, P) of u."""
    a, dt, one = stiffness, step, torch.ones_like(stiffness)
    if method == "im":
        s = 1 / (1 + dt.square() * a)
        rows, gains = [s, -dt * a * s, dt * s, s], [dt * s, dt.square() * s]
    else:
        rows, gains = [one, -dt * a, dt, 1 - dt.square() * a], [dt, dt.square()]
    return torch.stack(rows).view(2, 2, -1), torch.stack(gains)


def _prepared(
    stiffness: Tensor,
    step: Tensor,
    driven: Tensor,
    initial: Tensor | None,
    lengths: Tensor | None,
    method: OscillatorMethod,
) -> tuple[Tensor, Tensor, Tensor, Tensor, torch.dtype]:
    """Return A, dt, u with zeros in the padding and the initial state, and the type of the positions."""
    dtype, wide = checked_types(stiffness, step, driven, initial, method)
    u = masked(driven, lengths).to(wide)
    state = u.new_zeros(u.shape[0], 2, *u.shape[2:]) if initial is None else initial.to(wide)
    return stiffness.to(wide), step.to(wide), u, state, dtype


def checked_types(
    stiffness: Tensor, step: Tensor, driven: Tensor, initial: Tensor | None, method: OscillatorMethod
) -> tuple[torch.dtype, torch.dtype]:
    """Refuse other methods and shapes that do not match, and return the types of the positions and of the states."""
    check_choice("method", method, get_args(OscillatorMethod))
    given = [tuple(tensor.shape) for tensor in (stiffness, step, driven)]
    if driven.dim() != 4 or driven.shape[3] != 2 or {stiffness.shape, step.shape} != {driven.shape[2:3]}:
        raise UserError(
            f"oscillators: got stiffness, step and driven of shapes {', '.join(map(str, given))}, expected (P,), (P,) and "
            "(B, T, P, 2)"
        )
    shape = (driven.shape[0], 2, driven.shape[2], 2)
    if initial is not None and initial.shape != shape:
        raise UserError(f"oscillators: got initial of shape {tuple(initial.shape)}, expected {shape}")
    return scan_types(stiffness, step, driven, initial=initial)


def _results(states: Tensor, lengths: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the positions and the final state from the states (B, T + 1, 2, P, 2), that before the first step included."""
    positions = states[:, 1:, 1]
    if lengths is None:
        return positions.to(dtype), states[:, -1]
    final = states.gather(1, lengths.view(-1, 1, 1, 1, 1).expand(-1, 1, *states.shape[2:])).squeeze(1)
    return masked(positions, lengths).to(dtype), final


def _shapes(
    coefficients: Tensor, driven: Tensor, initial: Any, lengths: Any, keeps_velocities: bool
) -> tuple[Tensor, Tensor, Tensor]:
    velocities = driven.new_empty(driven.shape if keeps_velocities else 0)
    return driven.new_empty(driven.shape), driven.new_empty(driven.shape[0], 2, *driven.shape[2:]), velocities


def _gradient_shapes(
    grad_positions: Any, grad_final: Any, coefficients: Tensor, driven: Tensor, *others: Any
) -> tuple[Tensor, ...]:
    state = driven.new_empty(driven.shape[0], 2, *driven.shape[2:])
    return coefficients.new_empty(coefficients.shape), driven.new_empty(driven.shape), state


register_scan("oscillators", _shapes, _gradient_shapes)
