"""Triton kernels of forced oscillators and of their gradient; organised as ``diagonal_scan_kernels.py``.

Both methods are z' = z + c (u - A (y + lead z)) and y' = y + dt z'. Real and imaginary parts are numbers of their own, with the
coefficients of their oscillator.
"""

import triton
import triton.language as tl

from seqmem.ops.gpu.memory_chunks_device import append
from seqmem.ops.gpu.scan_steps import place, valid_in


@triton.jit
def _coefficients(coefficients, n, size, inside):
    """Return lead, A, c and dt of the numbers n, from (4, P)."""
    count = size // 2
    here = coefficients + n // 2
    lead, stiffness = tl.load(here, mask=inside, other=0.0), tl.load(here + count, mask=inside, other=0.0)
    gain, dt = tl.load(here + 2 * count, mask=inside, other=0.0), tl.load(here + 3 * count, mask=inside, other=0.0)
    return lead, stiffness, gain, dt


@triton.jit
def _load_state(state, row, n, size, inside, WIDE: tl.constexpr):
    """Return velocities and positions of a row of (B, 2, 2 P), zeros if there is no state."""
    z, y = tl.zeros(n.shape, WIDE), tl.zeros(n.shape, WIDE)
    if state is not None:
        z = tl.load(state + 2 * row * size + n, mask=inside, other=0.0)
        y = tl.load(state + (2 * row + 1) * size + n, mask=inside, other=0.0)
    return z, y


@triton.jit(do_not_specialize=("steps",))
def oscillators_forward(
    coefficients, driven, initial, lengths, positions, final, velocities, steps, size,
    BLOCK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Compute positions, the final state and, if there is room, velocities."""
    WIDE: tl.constexpr = final.dtype.element_ty
    row = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = n < size
    valid = valid_in(lengths, row, steps)
    lead, stiffness, gain, dt = _coefficients(coefficients, n, size, inside)
    z, y = _load_state(initial, row, n, size, inside, WIDE)
    for begin in range(0, steps, GROUP):
        terms = ()
        for k in tl.static_range(GROUP):
            at = place(row, begin + k, steps, valid, False) * size + n
            terms = append(terms, tl.load(driven + at, mask=inside & (begin + k < valid), other=0.0).to(WIDE))
        for k in tl.static_range(GROUP):
            now = begin + k < valid
            z = tl.where(now, z + gain * (terms[k] - stiffness * (y + lead * z)), z)
            y = tl.where(now, y + dt * z, y)
            at = place(row, begin + k, steps, valid, False) * size + n
            exists = inside & (begin + k < steps)
            tl.store(positions + at, tl.where(now, y, 0.0), mask=exists)
            if velocities is not None:
                tl.store(velocities + at, z, mask=exists)
    tl.store(final + 2 * row * size + n, z, mask=inside)
    tl.store(final + (2 * row + 1) * size + n, y, mask=inside)


@triton.jit(do_not_specialize=("steps",))
def oscillators_backward(
    grad_positions, grad_final, positions, velocities, coefficients, driven, initial, lengths, grad_coefficients, grad_driven,
    grad_initial, steps, size, BLOCK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Compute the gradients; those of the coefficients, (B, 4, 2 P), are sums over the row's steps."""
    WIDE: tl.constexpr = positions.dtype.element_ty
    row = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = n < size
    valid = valid_in(lengths, row, steps)
    lead, stiffness, gain, dt = _coefficients(coefficients, n, size, inside)
    start_z, start_y = _load_state(initial, row, n, size, inside, WIDE)
    d_z, d_y = _load_state(grad_final, row, n, size, inside, WIDE)
    zero = tl.zeros((BLOCK,), WIDE)
    sum_lead, sum_stiffness, sum_gain, sum_dt = zero, zero, zero, zero
    groups = tl.cdiv(steps, GROUP)
    for group in range(groups):
        begin = (groups - 1 - group) * GROUP
        terms = ()
        for k in tl.static_range(GROUP):
            s = begin + k
            now = inside & (s < valid)
            at = place(row, s, steps, valid, False) * size + n
            g = zero
            if grad_positions is not None:
                g = tl.load(grad_positions + at, mask=now, other=0.0).to(WIDE)
            u = tl.load(driven + at, mask=now, other=0.0).to(WIDE)
            z = tl.load(velocities + at, mask=now, other=0.0)
            z_before = tl.load(velocities + at - size, mask=now & (s > 0), other=0.0)
            y_before = tl.load(positions + at - size, mask=now & (s > 0), other=0.0)
            terms = append(append(append(terms, g), u), z)
            terms = append(append(terms, tl.where(s > 0, z_before, start_z)), tl.where(s > 0, y_before, start_y))
        for k in tl.static_range(GROUP - 1, -1, -1):
            now = begin + k < valid
            z, z_before, y_before = terms[5 * k + 2], terms[5 * k + 3], terms[5 * k + 4]
            e_y = tl.where(now, terms[5 * k] + d_y, 0.0)
            e_z = tl.where(now, d_z + dt * e_y, 0.0)
            e_u = gain * e_z
            pulled = y_before + lead * z_before
            e_pulled = -stiffness * e_u
            sum_dt += e_y * z
            sum_gain += e_z * (terms[5 * k + 1] - stiffness * pulled)
            sum_stiffness -= e_u * pulled
            sum_lead += e_pulled * z_before
            at = place(row, begin + k, steps, valid, False) * size + n
            tl.store(grad_driven + at, e_u, mask=inside & (begin + k < steps))
            d_y = tl.where(now, e_y + e_pulled, d_y)
            d_z = tl.where(now, e_z + lead * e_pulled, d_z)
    here = grad_coefficients + 4 * row * size + n
    tl.store(here, sum_lead, mask=inside)
    tl.store(here + size, sum_stiffness, mask=inside)
    tl.store(here + 2 * size, sum_gain, mask=inside)
    tl.store(here + 3 * size, sum_dt, mask=inside)
    if grad_initial is not None:
        tl.store(grad_initial + 2 * row * size + n, d_z, mask=inside)
        tl.store(grad_initial + (2 * row + 1) * size + n, d_y, mask=inside)
