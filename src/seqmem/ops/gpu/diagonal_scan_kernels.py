"""Triton kernels of h_t = a_t h_{t-1} + b_t and of its gradient: one program for a row and a block of its N numbers.

A program loops over groups of steps. The loads of a group do not depend on the state and come first, so that many are under way
at a time; then its steps follow each other in registers.
"""

import triton
import triton.language as tl

from seqmem.ops.gpu.memory_chunks_device import append
from seqmem.ops.gpu.scan_steps import load, multiply, place, store, valid_in


@triton.jit(do_not_specialize=("steps",))
def diagonal_scan_forward(
    a, b, initial, lengths, outputs, final, steps, size,
    VARYING: tl.constexpr, PAIRS: tl.constexpr, REVERSE: tl.constexpr, BLOCK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Compute h and the final state."""
    WIDE: tl.constexpr = final.dtype.element_ty
    row = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = n < size
    valid = valid_in(lengths, row, steps)
    h_re, h_im = tl.zeros((BLOCK,), WIDE), tl.zeros((BLOCK,), WIDE)
    if initial is not None:
        h_re, h_im = load(initial, row * size + n, inside, WIDE, PAIRS)
    a_re, a_im = h_re, h_im
    if not VARYING:
        a_re, a_im = load(a, n, inside, WIDE, PAIRS)
    for first in range(0, steps, GROUP):
        terms = ()
        for k in tl.static_range(GROUP):
            at = place(row, first + k, steps, valid, REVERSE) * size + n
            b_re, b_im = load(b, at, inside & (first + k < valid), WIDE, PAIRS)
            terms = append(append(terms, b_re), b_im)
            if VARYING:
                a_re, a_im = load(a, at, inside & (first + k < valid), WIDE, PAIRS)
                terms = append(append(terms, a_re), a_im)
        COUNT: tl.constexpr = 4 if VARYING else 2
        for k in tl.static_range(GROUP):
            if VARYING:
                a_re, a_im = terms[COUNT * k + 2], terms[COUNT * k + 3]
            now = first + k < valid
            new_re, new_im = multiply(a_re, a_im, h_re, h_im, PAIRS)
            new_re += terms[COUNT * k]
            new_im += terms[COUNT * k + 1]
            h_re, h_im = tl.where(now, new_re, h_re), tl.where(now, new_im, h_im)
            at = place(row, first + k, steps, valid, REVERSE) * size + n
            store(outputs, at, tl.where(now, h_re, 0.0), tl.where(now, h_im, 0.0), inside & (first + k < steps), PAIRS)
    store(final, row * size + n, h_re, h_im, inside, PAIRS)


@triton.jit(do_not_specialize=("steps",))
def diagonal_scan_backward(
    grad_outputs, grad_final, outputs, a, initial, lengths, grad_a, grad_b, grad_initial, steps, size,
    VARYING: tl.constexpr, PAIRS: tl.constexpr, REVERSE: tl.constexpr, BLOCK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Compute the gradients; that of constant a, (B, N), is the sum over the row's steps."""
    WIDE: tl.constexpr = outputs.dtype.element_ty
    row = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = n < size
    valid = valid_in(lengths, row, steps)
    zero = tl.zeros((BLOCK,), WIDE)
    start_re, start_im, d_re, d_im = zero, zero, zero, zero
    if initial is not None:
        start_re, start_im = load(initial, row * size + n, inside, WIDE, PAIRS)
    if grad_final is not None:
        d_re, d_im = load(grad_final, row * size + n, inside, WIDE, PAIRS)
    a_re, a_im, sum_re, sum_im = zero, zero, zero, zero
    if not VARYING:
        a_re, a_im = load(a, n, inside, WIDE, PAIRS)
    COUNT: tl.constexpr = 6 if VARYING else 4
    groups = tl.cdiv(steps, GROUP)
    for group in range(groups):
        first = (groups - 1 - group) * GROUP
        terms = ()
        for k in tl.static_range(GROUP):
            s = first + k
            now = inside & (s < valid)
            at = place(row, s, steps, valid, REVERSE) * size + n
            g_re, g_im = zero, zero
            if grad_outputs is not None:
                g_re, g_im = load(grad_outputs, at, now, WIDE, PAIRS)
            before = place(row, s - 1, steps, valid, REVERSE) * size + n
            h_re, h_im = load(outputs, before, now & (s > 0), WIDE, PAIRS)
            terms = append(append(terms, g_re), g_im)
            terms = append(append(terms, tl.where(s > 0, h_re, start_re)), tl.where(s > 0, h_im, start_im))
            if VARYING:
                a_re, a_im = load(a, at, now, WIDE, PAIRS)
                terms = append(append(terms, a_re), a_im)
        for k in tl.static_range(GROUP - 1, -1, -1):
            s = first + k
            now = s < valid
            if VARYING:
                a_re, a_im = terms[COUNT * k + 4], terms[COUNT * k + 5]
            e_re, e_im = terms[COUNT * k] + d_re, terms[COUNT * k + 1] + d_im
            e_re, e_im = tl.where(now, e_re, 0.0), tl.where(now, e_im, 0.0)
            at = place(row, s, steps, valid, REVERSE) * size + n
            exists = inside & (s < steps)
            store(grad_b, at, e_re, e_im, exists, PAIRS)
            da_re, da_im = multiply(terms[COUNT * k + 2], -terms[COUNT * k + 3], e_re, e_im, PAIRS)
            if VARYING:
                store(grad_a, at, da_re, da_im, exists, PAIRS)
            else:
                sum_re += da_re
                sum_im += da_im
            new_re, new_im = multiply(a_re, -a_im, e_re, e_im, PAIRS)
            d_re, d_im = tl.where(now, new_re, d_re), tl.where(now, new_im, d_im)
    if not VARYING:
        store(grad_a, row * size + n, sum_re, sum_im, inside, PAIRS)
    if grad_initial is not None:
        store(grad_initial, row * size + n, d_re, d_im, inside, PAIRS)
