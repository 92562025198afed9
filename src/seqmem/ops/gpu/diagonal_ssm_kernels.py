"""Triton kernels of diagonal state space models and of their gradient: one program for a row and a block of its H channels.

A program, of one warp unless M is large, holds the M modes of its channels in registers, as a tile (M, BLOCK). Backward has
the state before each chunk of steps, and computes the others of a chunk again, into a buffer of one chunk, as in
``selective_scan_kernels.py``.
"""

import triton
import triton.language as tl

from seqmem.ops.gpu.memory_chunks_device import append
from seqmem.ops.gpu.scan_steps import multiply, place, valid_in


@triton.jit
def _load_tile(pointer, at, plane, keep, WIDE: tl.constexpr, PAIRS: tl.constexpr):
    """Load real parts, and imaginary parts of pairs from the next plane."""
    re = tl.load(pointer + at, mask=keep, other=0.0).to(WIDE)
    im = tl.zeros_like(re)
    if PAIRS:
        im = tl.load(pointer + plane + at, mask=keep, other=0.0).to(WIDE)
    return re, im


@triton.jit
def _store_tile(pointer, at, plane, re, im, keep, PAIRS: tl.constexpr):
    tl.store(pointer + at, re, mask=keep)
    if PAIRS:
        tl.store(pointer + plane + at, im, mask=keep)


@triton.jit
def _tile(channels, modes, BLOCK: tl.constexpr, BLOCK_M: tl.constexpr):
    """Return a program's channels and which of them exist, and the places in (M, H) of its modes and which of them exist."""
    h = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    m = tl.arange(0, BLOCK_M)
    inside = h < channels
    return h, inside, m[:, None] * channels + h[None, :], (m < modes)[:, None] & inside[None, :]


@triton.jit
def _parameters(a, b, c, skip, h, inside, tile, plane, keep, WIDE: tl.constexpr, PAIRS: tl.constexpr):
    """Load a, b, c and skip, which is zero if there is none."""
    a_re, a_im = _load_tile(a, tile, plane, keep, WIDE, PAIRS)
    b_re, b_im = _load_tile(b, tile, plane, keep, WIDE, PAIRS)
    c_re, c_im = _load_tile(c, tile, plane, keep, WIDE, PAIRS)
    direct = tl.zeros(h.shape, WIDE)
    if skip is not None:
        direct = tl.load(skip + h, mask=inside, other=0.0).to(WIDE)
    return a_re, a_im, b_re, b_im, c_re, c_im, direct


@triton.jit
def _advance(s_re, s_im, a_re, a_im, b_re, b_im, x, now, PAIRS: tl.constexpr):
    """Return the state after a step, which is the same where ``now`` is false."""
    new_re, new_im = multiply(a_re, a_im, s_re, s_im, PAIRS)
    s_re = tl.where(now, new_re + b_re * x[None, :], s_re)
    if PAIRS:
        s_im = tl.where(now, new_im + b_im * x[None, :], s_im)
    return s_re, s_im


@triton.jit(do_not_specialize=("steps",))
def diagonal_ssm_forward(
    inputs, a, b, c, skip, initial, lengths, outputs, final, starts, steps, channels, modes,
    PAIRS: tl.constexpr, REVERSE: tl.constexpr, CHUNK: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr,
    BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Compute y, the final state (B, 2, M, H) and, if there is room, the states before each chunk (B, T / CHUNK, 2, M, H)."""
    WIDE: tl.constexpr = final.dtype.element_ty
    PARTS: tl.constexpr = 2 if PAIRS else 1
    row = tl.program_id(0).to(tl.int64)
    valid = valid_in(lengths, row, steps)
    plane = modes * channels
    h, inside, tile, keep = _tile(channels, modes, BLOCK, BLOCK_M)
    a_re, a_im, b_re, b_im, c_re, c_im, direct = _parameters(a, b, c, skip, h, inside, tile, plane, keep, WIDE, PAIRS)
    s_re, s_im = tl.zeros((BLOCK_M, BLOCK), WIDE), tl.zeros((BLOCK_M, BLOCK), WIDE)
    if initial is not None:
        s_re, s_im = _load_tile(initial, row * PARTS * plane + tile, plane, keep, WIDE, PAIRS)
    for begin in range(0, steps, GROUP):
        if starts is not None:  # noqa: SIM102 (known when it is compiled, the other one is not)
            if begin % CHUNK == 0:
                chunk = row * tl.cdiv(steps, CHUNK) + begin // CHUNK
                _store_tile(starts, chunk * PARTS * plane + tile, plane, s_re, s_im, keep, PAIRS)
        terms = ()
        for k in tl.static_range(GROUP):
            at = place(row, begin + k, steps, valid, REVERSE) * channels + h
            terms = append(terms, tl.load(inputs + at, mask=inside & (begin + k < valid), other=0.0).to(WIDE))
        for k in tl.static_range(GROUP):
            now = begin + k < valid
            s_re, s_im = _advance(s_re, s_im, a_re, a_im, b_re, b_im, terms[k], now, PAIRS)
            y = c_re * s_re
            if PAIRS:
                y -= c_im * s_im
            y = tl.where(now, tl.sum(y, 0) + direct * terms[k], 0.0)
            at = place(row, begin + k, steps, valid, REVERSE) * channels + h
            tl.store(outputs + at, y, mask=inside & (begin + k < steps))
    _store_tile(final, row * PARTS * plane + tile, plane, s_re, s_im, keep, PAIRS)


@triton.jit(do_not_specialize=("steps",))
def diagonal_ssm_backward(
    grad_outputs, grad_final, starts, scratch, inputs, a, b, c, skip, lengths, grad_inputs, grad_a, grad_b, grad_c, grad_skip,
    grad_initial, steps, channels, modes,
    PAIRS: tl.constexpr, REVERSE: tl.constexpr, CHUNK: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr,
    BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Compute the gradients; those of a, b and c (B, 2, M, H) and skip (B, H) are sums over the row's steps."""
    WIDE: tl.constexpr = starts.dtype.element_ty
    PARTS: tl.constexpr = 2 if PAIRS else 1
    row = tl.program_id(0).to(tl.int64)
    valid = valid_in(lengths, row, steps)
    plane = modes * channels
    h, inside, tile, keep = _tile(channels, modes, BLOCK, BLOCK_M)
    a_re, a_im, b_re, b_im, c_re, c_im, direct = _parameters(a, b, c, skip, h, inside, tile, plane, keep, WIDE, PAIRS)
    zero = tl.zeros((BLOCK_M, BLOCK), WIDE)
    d_re, d_im = zero, zero
    if grad_final is not None:
        d_re, d_im = _load_tile(grad_final, row * PARTS * plane + tile, plane, keep, WIDE, PAIRS)
    da_re, da_im, db_re, db_im, dc_re, dc_im = zero, zero, zero, zero, zero, zero
    sum_skip = tl.zeros((BLOCK,), WIDE)
    chunks = tl.cdiv(steps, CHUNK)
    for done in range(chunks):
        first = (chunks - 1 - done) * CHUNK
        start = (row * chunks + chunks - 1 - done) * PARTS * plane
        s_re, s_im = _load_tile(starts, start + tile, plane, keep, WIDE, PAIRS)
        for begin in range(0, CHUNK, GROUP):
            terms = ()
            for k in tl.static_range(GROUP):
                s = first + begin + k
                at = place(row, s, steps, valid, REVERSE) * channels + h
                terms = append(terms, tl.load(inputs + at, mask=inside & (s < valid), other=0.0).to(WIDE))
            for k in tl.static_range(GROUP):
                here = (row * CHUNK + begin + k) * PARTS * plane
                _store_tile(scratch, here + tile, plane, s_re, s_im, keep, PAIRS)
                now = first + begin + k < valid
                s_re, s_im = _advance(s_re, s_im, a_re, a_im, b_re, b_im, terms[k], now, PAIRS)
        tl.debug_barrier()  # the buffer is read by the threads that wrote it, or by others of the program
        count = tl.minimum(steps - first, CHUNK)
        for back in range(count):
            s = first + count - 1 - back
            now = s < valid
            at = place(row, s, steps, valid, REVERSE) * channels + h
            before_re, before_im = _load_tile(
                scratch, (row * CHUNK + s - first) * PARTS * plane + tile, plane, keep, WIDE, PAIRS
            )  # fmt: skip
            x = tl.load(inputs + at, mask=inside & now, other=0.0).to(WIDE)
            g = tl.zeros((BLOCK,), WIDE)
            if grad_outputs is not None:
                g = tl.load(grad_outputs + at, mask=inside & now, other=0.0).to(WIDE)
            s_re, s_im = _advance(before_re, before_im, a_re, a_im, b_re, b_im, x, now, PAIRS)
            e_re = tl.where(now, g[None, :] * c_re + d_re, 0.0)
            dc_re += g[None, :] * s_re
            db_re += e_re * x[None, :]
            dx = e_re * b_re
            e_im = zero
            if PAIRS:
                e_im = tl.where(now, d_im - g[None, :] * c_im, 0.0)
                dc_im -= g[None, :] * s_im
                db_im += e_im * x[None, :]
                dx += e_im * b_im
            p_re, p_im = multiply(before_re, -before_im, e_re, e_im, PAIRS)
            da_re += p_re
            n_re, n_im = multiply(a_re, -a_im, e_re, e_im, PAIRS)
            d_re = tl.where(now, n_re, d_re)
            if PAIRS:
                da_im += p_im
                d_im = tl.where(now, n_im, d_im)
            sum_skip += g * x
            tl.store(grad_inputs + at, tl.where(now, tl.sum(dx, 0) + direct * g, 0.0), mask=inside & (s < steps))
        tl.debug_barrier()  # before the next chunk writes to the buffer
    here = row * PARTS * plane + tile
    _store_tile(grad_a, here, plane, da_re, da_im, keep, PAIRS)
    _store_tile(grad_b, here, plane, db_re, db_im, keep, PAIRS)
    _store_tile(grad_c, here, plane, dc_re, dc_im, keep, PAIRS)
    if skip is not None:
        tl.store(grad_skip + row * channels + h, sum_skip, mask=inside)
    if grad_initial is not None:
        _store_tile(grad_initial, here, plane, d_re, d_im, keep, PAIRS)
