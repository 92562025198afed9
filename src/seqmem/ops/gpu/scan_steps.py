"""What the Triton kernels of scans have in common: order of steps, numbers that may be pairs, and activations."""

import triton
import triton.language as tl

from seqmem.ops.gpu.memory_chunks_device import valid_steps


@triton.jit
def place(row, s, steps, valid, REVERSE: tl.constexpr):
    """Return the index in (B, T) of step s of a row's recurrence; in reverse it starts at the row's last valid step."""
    t = s
    if REVERSE:
        t = tl.where(s < valid, valid - 1 - s, s)
    return row * steps + t


@triton.jit
def valid_in(lengths, row, steps):
    """Return the valid steps of a row."""
    return valid_steps(lengths, row, 0, steps)


@triton.jit
def load(pointer, at, keep, WIDE: tl.constexpr, PAIRS: tl.constexpr):
    """Load numbers as real and imaginary parts, zero for real numbers, and zero where ``keep`` is false."""
    if PAIRS:
        at = 2 * at[:, None] + tl.arange(0, 2)[None, :]
        values = tl.load(pointer + at, mask=tl.broadcast_to(keep[:, None], at.shape), other=0.0)
        re, im = tl.split(values.to(WIDE))
    else:
        re = tl.load(pointer + at, mask=keep, other=0.0).to(WIDE)
        im = tl.zeros_like(re)
    return re, im


@triton.jit
def store(pointer, at, re, im, keep, PAIRS: tl.constexpr):
    """Store numbers; the imaginary parts of real ones are ignored."""
    if PAIRS:
        at = 2 * at[:, None] + tl.arange(0, 2)[None, :]
        tl.store(pointer + at, tl.join(re, im), mask=tl.broadcast_to(keep[:, None], at.shape))
    else:
        tl.store(pointer + at, re, mask=keep)


@triton.jit
def multiply(a_re, a_im, b_re, b_im, PAIRS: tl.constexpr):
    """Return a b; the imaginary part of real numbers is that of b."""
    re = a_re * b_re
    im = b_im
    if PAIRS:
        re -= a_im * b_im
        im = a_re * b_im + a_im * b_re
    return re, im


@triton.jit
def softplus(x):
    """Return ln(1 + exp(x)), with small relative errors for negative x too (Kahan's form of ln(1 + e))."""
    e = tl.exp(-tl.abs(x))
    u = 1.0 + e
    rest = u - 1.0
    return tl.maximum(x, 0.0) + tl.where(rest == 0.0, e, tl.log(u) * (e / tl.where(rest == 0.0, 1.0, rest)))
