"""Recurrences along the memory order in Triton, as associative scans: N coefficients take O(log N) parallel steps."""

import triton
import triton.language as tl


@triton.jit
def _then(a_first, b_first, a_then, b_then):
    """Compose the maps r' = a r + b."""
    return a_then * a_first, a_then * b_first + b_then


@triton.jit
def _plus(first, then):
    return first + then


@triton.jit
def _then_eliminate(a_first, b_first, c_first, a_then, b_then, c_then):
    """Compose the maps E' = (a E + b) / (c E + 1)."""
    scale = 1.0 / (c_then * b_first + 1.0)
    return (
        (a_then * a_first + b_then * c_first) * scale,
        (a_then * b_first + b_then) * scale,
        (c_then * a_first + c_first) * scale,
    )


@triton.jit
def _before(values, n, REVERSE: tl.constexpr, BLOCK: tl.constexpr):
    """Return the value that the recurrence had one step before coefficient n, and 0 at its start."""
    source = n + 1 if REVERSE else n - 1
    inside = (source >= 0) & (source < BLOCK)
    return tl.where(inside, tl.gather(values, tl.where(inside, source, 0), 0), 0.0)


@triton.jit
def recurrence(a, b, n, REVERSE: tl.constexpr, BLOCK: tl.constexpr):
    """Return r_n of r_{n+1} = a_n r_n + b_n from r = 0; in reverse r_n of r_{n-1} = a_n r_n + b_n.

    Coefficients behind the order must have a = 1 and b = 0.
    """
    _, after = tl.associative_scan((a, b), 0, _then, reverse=REVERSE)
    return _before(after, n, REVERSE, BLOCK)


@triton.jit
def recurrence_from(first, a, b, n, BLOCK: tl.constexpr):
    """Return r_n of r_{n+1} = a_n r_n + b_n from r_0 = first."""
    scale, after = tl.associative_scan((a, b), 0, _then)
    return tl.where(n == 0, first, _before(scale * first + after, n, False, BLOCK))


@triton.jit
def sum_before(terms, n, REVERSE: tl.constexpr, BLOCK: tl.constexpr):
    """Return the sum of the terms below n; in reverse of those above n."""
    return _before(tl.associative_scan(terms, 0, _plus, reverse=REVERSE), n, REVERSE, BLOCK)


@triton.jit
def elimination(p, q, d, g, h, i, n, BLOCK: tl.constexpr):
    """Return a_n, s_n and 1 / D_n of M = I - i A = L U (``csrc/quasiseparable.h``), all float64.

    The number E_n that describes the eliminated part follows a recurrence whose quadratic terms cancel,
    E_{n+1} = ((1 + i (d - p q - g h)) E_n + i^2 q g) / (1 + i d - p h E_n).
    The denominators are pivots of principal submatrices of M, and positive.
    """
    scale = 1.0 / (1.0 + i * d)
    _, after, _ = tl.associative_scan(
        ((1.0 + i * (d - p * q - g * h)) * scale, i * i * q * g * scale, -p * h * scale), 0, _then_eliminate
    )
    eliminated = _before(after, n, False, BLOCK)
    inverse = 1.0 / (1.0 + i * d - eliminated * p * h)
    return (i * q - eliminated * h) * inverse, i * g - eliminated * p, inverse
