"""One step of a memory by generators in Triton, and its transpose; csrc/quasiseparable.h derives the recurrences.

Coefficients behind the order stay zero, since their generators are zero. Without an upper triangle, with i = alpha dt,
e = dt - i and D = 1 / (1 + d i),

    y = x + dt D (B u - d x - p S),   S_{n+1} = (1 - i p q D) S_n + q D (x + i B u),

which adds the change to x: coefficients near 1 would lose digits.
"""

import triton
import triton.language as tl

from seqmem.ops.gpu.scans import recurrence, sum_before


@triton.jit
def load_generators(generators, n, N: tl.constexpr):
    """Return p, q, d, g, h, B."""
    inside = n < N
    return (
        tl.load(generators + n, mask=inside, other=0.0),
        tl.load(generators + N + n, mask=inside, other=0.0),
        tl.load(generators + 2 * N + n, mask=inside, other=0.0),
        tl.load(generators + 3 * N + n, mask=inside, other=0.0),
        tl.load(generators + 4 * N + n, mask=inside, other=0.0),
        tl.load(generators + 5 * N + n, mask=inside, other=0.0),
    )


@triton.jit
def _load_elimination(elimination, t, n, N: tl.constexpr):
    row = elimination + t * (3 * N) + n
    inside = n < N
    return (
        tl.load(row, mask=inside, other=0.0),
        tl.load(row + N, mask=inside, other=0.0),
        tl.load(row + 2 * N, mask=inside, other=0.0),
    )


@triton.jit
def advance(x, u, rows, sizes, elimination, t, n, N: tl.constexpr):
    """Return the memory after step t, (BLOCK,), from the memory x before it and the input u."""
    dt = tl.load(sizes + 3 * t)
    i = tl.load(sizes + 3 * t + 1)
    started = tl.load(sizes + 3 * t + 2) > 0.0
    p, q, d, g, h, b = rows
    if elimination is not None:
        a, s, inverse = _load_elimination(elimination, t, n, N)
        e = dt - i
        z = x - e * (d * x + g * sum_before(h * x, True)) + b * (dt * u) - p * (e * sum_before(q * x, False))
        w = z - p * recurrence(1.0 - a * p, a * z, False)
        y = (w - s * recurrence(1.0 - h * s * inverse, h * inverse * w, True)) * inverse
    else:
        inverse = 1.0 / (1.0 + d * i)
        r = recurrence(1.0 - i * p * q * inverse, q * inverse * (x + (i * u) * b), False)
        y = x + dt * inverse * (b * u - d * x - p * r)
    return tl.where(started, tl.where(n == 0, u, 0.0), y)


@triton.jit
def pull_back(x, rows, sizes, elimination, t, n, N: tl.constexpr):
    """Return the gradient of the memory before step t, (BLOCK,), from that after it."""
    dt = tl.load(sizes + 3 * t)
    i = tl.load(sizes + 3 * t + 1)
    started = tl.load(sizes + 3 * t + 2) > 0.0
    p, q, d, g, h, _ = rows
    if elimination is not None:
        a, s, inverse = _load_elimination(elimination, t, n, N)
        e = dt - i
        w = (x - h * recurrence(1.0 - s * h * inverse, s * inverse * x, False)) * inverse
        r = recurrence(1.0 - p * a, p * w, True)
        v = w - a * r
        y = v - e * (d * v + q * r) - e * h * sum_before(g * v, False)
    else:
        inverse = 1.0 / (1.0 + d * i)
        r = recurrence(1.0 - i * p * q * inverse, p * inverse * x, True)
        y = x - dt * inverse * (d * x + q * r)
    return tl.where(started, 0.0, y)
