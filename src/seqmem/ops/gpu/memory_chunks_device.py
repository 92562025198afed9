"""What the forward and the backward kernel of the HiPPO network in chunks have in common."""

import triton
import triton.language as tl


@triton.jit
def append(values, value):
    """Return a tuple with one more value."""
    return values + (value,)  # noqa: RUF005 (Triton has no unpacking)


@triton.jit
def activate(x, NAME: tl.constexpr):
    """Return an activation of x."""
    if NAME == "tanh":
        x = 2.0 * tl.sigmoid(2.0 * x) - 1.0
    elif NAME == "sigmoid":
        x = tl.sigmoid(x)
    elif NAME == "relu":
        x = tl.where(x <= 0.0, 0.0, x)
    return x


@triton.jit
def slope(y, NAME: tl.constexpr):
    """Return the derivative of an activation from its value."""
    if NAME == "tanh":
        s = 1.0 - y * y
    elif NAME == "sigmoid":
        s = y * (1.0 - y)
    elif NAME == "relu":
        s = tl.where(y > 0.0, 1.0, y * 0.0)
    else:
        s = y * 0.0 + 1.0
    return s


@triton.jit
def valid_steps(lengths, row, start, count):
    """Return the valid steps of a row in a chunk."""
    valid = count
    if lengths is not None:
        left = tl.load(lengths + row) - start
        valid = tl.minimum(tl.maximum(left, 0), count).to(tl.int32)
    return valid


@triton.jit
def table_row(
    table, j, count, n, H: tl.constexpr, M: tl.constexpr, C: tl.constexpr, GATED: tl.constexpr, STATIONARY: tl.constexpr
):
    """Return K[j, j - back] of each memory for back = 0, 1, ..., candidate and gate in turn."""
    entries = ()
    if table is not None:
        for back in tl.static_range(C):
            if STATIONARY:
                keep = n < H
                at = back
            else:
                keep = (n < H) & (back <= j) & (j < count)
                at = j * (j + 1) // 2 + j - back
            for k in tl.static_range(M):
                place = table + (at * M + k) * ((2 if GATED else 1) * H) + n
                entries = append(entries, tl.load(place, mask=keep, other=0.0))
                if GATED:
                    entries = append(entries, tl.load(place + H, mask=keep, other=0.0))
    return entries


@triton.jit
def weight_rows(weight, n, H: tl.constexpr, M: tl.constexpr):
    """Return the rows of a matrix (M, H)."""
    rows = ()
    if weight is not None:
        for k in tl.static_range(M):
            rows = append(rows, tl.load(weight + k * H + n, mask=n < H, other=0.0))
    return rows


@triton.jit
def fed_back(feedback, j, back, k, M: tl.constexpr, STATIONARY: tl.constexpr):
    """Return W_um G[j - 1, j - back] of memory k, by which u_j depends on u_{j - back}; 0 before the chunk."""
    at = back - 1 if STATIONARY else (j - 1) * j // 2 + j - back
    return tl.load(feedback + at * M + k, mask=back <= j, other=0.0)
