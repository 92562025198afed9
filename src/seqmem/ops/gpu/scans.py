"""Recurrences along the memory order in Triton, as associative scans: N coefficients take O(log N) parallel steps.

A value before coefficient n is that of the coefficients before n: a run of coefficients is composed together with the same run
without its last one. This takes twice the numbers of a scan, but fewer cycles and no shared memory of N numbers, which a shift
of the scan's result by tl.gather takes (on sm_90 with N = 512 some 300 cycles against 380, and 64 bytes against 2 KB).
"""

import triton
import triton.language as tl


@triton.jit
def _compose(a1, b1, p1, q1, a2, b2, p2, q2):
    """Compose maps r' = a r + b of a run of coefficients; p and q are those of all but its last coefficient."""
    return a2 * a1, a2 * b1 + b2, p2 * a1, p2 * b1 + q2


@triton.jit
def _add(b1, q1, b2, q2):
    """Add terms of a run of coefficients; q are those of all but its last coefficient."""
    return b1 + b2, b1 + q2


@triton.jit
def _compose_elimination(a_first, b_first, c_first, a_then, b_then, c_then):
    """Compose the maps E' = (a E + b) / (c E + 1)."""
    scale = 1.0 / (c_then * b_first + 1.0)
    return (
        (a_then * a_first + b_then * c_first) * scale,
        (a_then * b_first + b_then) * scale,
        (c_then * a_first + c_first) * scale,
    )


@triton.jit
def recurrence(a, b, REVERSE: tl.constexpr):
    """Return r_n of r_{n+1} = a_n r_n + b_n from r = 0; in reverse r_n of r_{n-1} = a_n r_n + b_n.

    Coefficients behind the order must have a = 1 and b = 0.
    """
    _, _, _, r = tl.associative_scan((a, b, tl.zeros_like(a) + 1.0, tl.zeros_like(b)), 0, _compose, reverse=REVERSE)
    return r


@triton.jit
def recurrence_from(first, a, b):
    """Return r_n of r_{n+1} = a_n r_n + b_n from r_0 = first."""
    _, _, scale, r = tl.associative_scan((a, b, tl.zeros_like(a) + 1.0, tl.zeros_like(b)), 0, _compose)
    return scale * first + r


@triton.jit
def sum_before(terms, REVERSE: tl.constexpr):
    """Return the sum of the terms below n; in reverse of those above n."""
    _, r = tl.associative_scan((terms, tl.zeros_like(terms)), 0, _add, reverse=REVERSE)
    return r


@triton.jit
def elimination(p, q, d, g, h, i, n, BLOCK: tl.constexpr):
    """Return a_n, s_n and 1 / D_n of M = I - i A = L U (``csrc/quasiseparable.h``), all float64.

    The number E_n that describes the eliminated part follows a recurrence whose quadratic terms cancel,
    E_{n+1} = ((1 + i (d - p q - g h)) E_n + i^2 q g) / (1 + i d - p h E_n).
    The denominators are pivots of principal submatrices of M, and positive.
    """
    scale = 1.0 / (1.0 + i * d)
    _, after, _ = tl.associative_scan(
        ((1.0 + i * (d - p * q - g * h)) * scale, i * i * q * g * scale, -p * h * scale), 0, _compose_elimination
    )
    # Composing these maps without the last coefficient as well would take six numbers of float64, more than a gather costs.
    eliminated = tl.where(n == 0, 0.0, tl.gather(after, tl.where(n == 0, 0, n - 1), 0))
    inverse = 1.0 / (1.0 + i * d - eliminated * p * h)
    return (i * q - eliminated * h) * inverse, i * g - eliminated * p, inverse
