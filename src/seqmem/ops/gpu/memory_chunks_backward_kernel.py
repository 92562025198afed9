"""The Triton kernel of backward, described at the function of the same name in ``memory_chunks_plain.py``."""

import triton
import triton.language as tl

from seqmem.ops.gpu.memory_chunks_device import append, fed_back, slope, table_row, valid_steps, weight_rows
from seqmem.ops.gpu.memory_chunks_step import load_generators, pull_back


@triton.jit
def _memory_before(
    grad_memory, grad_inputs, pulled, lengths, weight_um, generators, sizes, elimination, row, start, count, stride_u,
    N: tl.constexpr, M: tl.constexpr, C: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Replace the gradient of the memory after a chunk by that before it."""
    n = tl.arange(0, BLOCK_N)
    inside = n < N
    rows = load_generators(generators, n, N)
    valid = valid_steps(lengths, row, start, count)
    for k in range(M):
        place = grad_memory + (row * M + k) * N + n
        x = tl.load(place, mask=inside, other=0.0)
        du = tl.sum(x, 0) * 0.0
        if weight_um is not None:
            fed = tl.load(weight_um + k * N + n, mask=inside, other=0.0)
        for back in range(valid):
            j = valid - 1 - back
            x += tl.load(pulled + ((row * C + j) * M + k) * N + n, mask=inside, other=0.0)
            if weight_um is not None:
                x += fed * du
                du = tl.load(grad_inputs + row * stride_u + (start + j) * M + k)
            x = pull_back(x, rows, sizes, elimination, start + j, n, N)
        if weight_um is not None:
            x += fed * du
        tl.store(place, x, mask=inside)


@triton.jit
def _from_end(
    grad_memory, grad_inputs, impulses, row, start, valid, stride_u,
    N: tl.constexpr, M: tl.constexpr, C: tl.constexpr, STATIONARY: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Add the gradients of u through the memory after the chunk."""
    n = tl.arange(0, BLOCK_N)
    i = tl.arange(0, C)
    last = C - 1 if STATIONARY else tl.maximum(valid - 1, 0)
    at = last - i if STATIONARY else last * (last + 1) // 2 + i
    keep = i < valid
    table = tl.load(impulses + at[:, None] * N + n[None, :], mask=keep[:, None] & (n < N)[None, :], other=0.0)
    for k in range(M):
        x = tl.load(grad_memory + (row * M + k) * N + n, mask=n < N, other=0.0)
        place = grad_inputs + row * stride_u + (start + i) * M + k
        direct = tl.load(place, mask=keep, other=0.0)
        tl.store(place, direct + tl.sum(table * x[None, :], 1), mask=keep)


@triton.jit
def _load_step(
    gates, outputs, first_hidden, grad_outputs, row, at, t, n, keep, stride, width, H: tl.constexpr, GATED: tl.constexpr
):
    """Return candidate, gate, hidden state before the step and gradient of the output."""
    inside = (n < H) & keep
    c = tl.load(gates + at + n, mask=inside, other=0.0)
    g = c
    earlier = c
    if GATED:
        g = tl.load(gates + at + H + n, mask=inside, other=0.0)
        first = tl.load(first_hidden + row * H + n, mask=inside & (t == 0), other=0.0)
        earlier = tl.load(outputs + row * stride + (t - 1) * width + n, mask=inside & (t > 0), other=0.0) + first
    d = c * 0.0
    if grad_outputs is not None:
        d = tl.load(grad_outputs + row * stride + t * width + n, mask=inside, other=0.0)
    return c, g, earlier, d


@triton.jit
def _through_gates(d, c, g, earlier, grad_gates, at, n, H: tl.constexpr, GATED: tl.constexpr, ACTIVATION_H: tl.constexpr):
    """Store and return the gradients of the gates' inputs, and return that of the hidden state before the step."""
    dc = d * slope(c, ACTIVATION_H)
    dg = dc
    if GATED:
        dg = d * (c - earlier) * g * (1.0 - g)
        dc *= g
        d *= 1.0 - g
        tl.store(grad_gates + at + H + n, dg.to(grad_gates.dtype.element_ty), mask=n < H)
    else:
        d *= 0.0
    tl.store(grad_gates + at + n, dc.to(grad_gates.dtype.element_ty), mask=n < H)
    return dc, dg, d


@triton.jit
def _run_steps_back(
    d, table, feedback, weight_uh, gates, outputs, first_hidden, inputs, grad_outputs, grad_inputs, grad_gates, row, n, start,
    count, valid, stride, width, stride_u,
    H: tl.constexpr, M: tl.constexpr, C: tl.constexpr, GATED: tl.constexpr, STATIONARY: tl.constexpr,
    ACTIVATION_U: tl.constexpr, ACTIVATION_H: tl.constexpr,
):  # fmt: skip
    """Compute the valid steps of a chunk of several steps, the last one first."""
    R: tl.constexpr = (2 if GATED else 1) * H
    PARTS: tl.constexpr = 2 if GATED else 1
    w = weight_rows(weight_uh, n, H, M)
    sums = ()  # of K da over the later steps, for the inputs u of this step and of the C - 2 before it
    fed = ()
    for _ in tl.static_range((C - 1) * M):
        sums = append(sums, d * 0.0)
        fed = append(fed, tl.sum(d, 0) * 0.0)
    entries = table_row(table, valid - 1, count, n, H, M, C, GATED, STATIONARY)
    at = (row * C + valid - 1) * R
    ahead = _load_step(
        gates, outputs, first_hidden, grad_outputs, row, at, start + valid - 1, n, valid > 0, stride, width, H, GATED
    )
    for back_step in range(valid):
        j = valid - 1 - back_step
        t = start + j
        at = (row * C + j) * R
        now = entries
        c, g, earlier, grad = ahead
        if not STATIONARY:
            entries = table_row(table, j - 1, count, n, H, M, C, GATED, STATIONARY)
        ahead = _load_step(gates, outputs, first_hidden, grad_outputs, row, at - R, t - 1, n, j > 0, stride, width, H, GATED)
        dc, dg, d = _through_gates(d + grad, c, g, earlier, grad_gates, at, n, H, GATED, ACTIVATION_H)
        pushed = ()
        for back in tl.static_range(C):
            for k in tl.static_range(M):
                total = sums[back * M + k] if back < C - 1 else d * 0.0
                if table is not None:
                    total += now[PARTS * (back * M + k)].to(d.dtype) * dc
                    if GATED:
                        total += now[PARTS * (back * M + k) + 1].to(d.dtype) * dg
                pushed = append(pushed, total)
        kept = ()
        for k in tl.static_range((C - 1) * M):
            kept = append(kept, pushed[M + k])
        sums = kept
        fresh = ()
        for k in tl.static_range(M):
            place = row * stride_u + t * M + k
            du = tl.load(grad_inputs + place) + fed[k]
            if table is not None:
                du += tl.sum(pushed[k], 0)
            else:
                tl.debug_barrier()  # all warps load the place before one of them stores it
            du *= slope(tl.load(inputs + place), ACTIVATION_U)
            tl.store(grad_inputs + place, du)
            fresh = append(fresh, du)
            if weight_uh is not None:
                d += du * w[k]
        if feedback is not None:
            shifted = ()
            for back in tl.static_range(1, C):
                for k in tl.static_range(M):
                    term = fed_back(feedback, j, back, k, M, STATIONARY) * fresh[k]
                    if back < C - 1:
                        term += fed[back * M + k]
                    shifted = append(shifted, term)
            fed = shifted
    return d


@triton.jit
def _run_step_back(
    d, table, weight_uh, gates, outputs, first_hidden, inputs, grad_outputs, grad_inputs, grad_gates, row, n, t, stride, width,
    stride_u, H: tl.constexpr, M: tl.constexpr, GATED: tl.constexpr, ACTIVATION_U: tl.constexpr, ACTIVATION_H: tl.constexpr,
):  # fmt: skip
    """Compute the step of a chunk of one."""
    R: tl.constexpr = (2 if GATED else 1) * H
    at = row * R
    inside = n < H
    c, g, earlier, grad = _load_step(gates, outputs, first_hidden, grad_outputs, row, at, t, n, True, stride, width, H, GATED)
    dc, dg, d = _through_gates(d + grad, c, g, earlier, grad_gates, at, n, H, GATED, ACTIVATION_H)
    for k in range(M):
        place = row * stride_u + t * M + k
        du = tl.load(grad_inputs + place)
        if table is not None:
            total = tl.load(table + k * R + n, mask=inside, other=0.0).to(d.dtype) * dc
            if GATED:
                total += tl.load(table + k * R + H + n, mask=inside, other=0.0).to(d.dtype) * dg
            du += tl.sum(total, 0)
        else:
            tl.debug_barrier()  # all warps load the place before one of them stores it
        du *= slope(tl.load(inputs + place), ACTIVATION_U)
        tl.store(grad_inputs + place, du)
        if weight_uh is not None:
            d += du * tl.load(weight_uh + k * H + n, mask=inside, other=0.0)
    return d


@triton.jit(do_not_specialize=("start", "count", "next_count", "stride_u"))
def backward_chunk(
    gates, table, feedback, impulses, outputs, first_hidden, inputs, grad_outputs, carry, grad_memory, grad_inputs, grad_gates,
    pulled, lengths, weight_uh, weight_um, generators, sizes, elimination, start, count, next_count, stride, width, stride_u,
    H: tl.constexpr, N: tl.constexpr, M: tl.constexpr, C: tl.constexpr, GATED: tl.constexpr, STATIONARY: tl.constexpr,
    ACTIVATION_U: tl.constexpr, ACTIVATION_H: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Compute the gradients through the memory of the next chunk, then those through this chunk's steps."""
    row = tl.program_id(0).to(tl.int64)
    if pulled is not None:
        _memory_before(
            grad_memory, grad_inputs, pulled, lengths, weight_um, generators, sizes, elimination, row, start + count,
            next_count, stride_u, N, M, C, BLOCK_N,
        )  # fmt: skip
        tl.debug_barrier()
    if gates is not None:
        valid = valid_steps(lengths, row, start, count)
        _from_end(grad_memory, grad_inputs, impulses, row, start, valid, stride_u, N, M, C, STATIONARY, BLOCK_N)
        tl.debug_barrier()
        n = tl.arange(0, BLOCK_H)
        d = tl.load(carry + row * H + n, mask=n < H, other=0.0)
        if C == 1:
            if valid > 0:
                d = _run_step_back(
                    d, table, weight_uh, gates, outputs, first_hidden, inputs, grad_outputs, grad_inputs, grad_gates, row, n,
                    start, stride, width, stride_u, H, M, GATED, ACTIVATION_U, ACTIVATION_H,
                )  # fmt: skip
        else:
            d = _run_steps_back(
                d, table, feedback, weight_uh, gates, outputs, first_hidden, inputs, grad_outputs, grad_inputs, grad_gates, row,
                n, start, count, valid, stride, width, stride_u, H, M, C, GATED, STATIONARY, ACTIVATION_U, ACTIVATION_H,
            )  # fmt: skip
        tl.store(carry + row * H + n, d, mask=n < H)
        for j in range(valid, C):
            place = grad_gates + (row * C + j) * ((2 if GATED else 1) * H) + n
            tl.store(place, (d * 0.0).to(grad_gates.dtype.element_ty), mask=n < H)
            if GATED:
                tl.store(place + H, (d * 0.0).to(grad_gates.dtype.element_ty), mask=n < H)
