"""Triton kernels of the HiPPO network in chunks, one program a row; no program needs the progress of another.

Each is described at the function of the same name in ``memory_chunks_plain.py``. A step of the sequential part starts with
the loads of the next one, since the compiler does not move loads over the barriers of a sum. Inputs u of earlier steps in the
chunk, and in backward the sums that earlier steps need, are tuples in registers, shifted by one at each step; so are the rows
of the table, except for chunks of one step, which take any number of memories.
"""

import triton
import triton.language as tl

from seqmem.ops.gpu.memory_chunks_device import activate, append, fed_back, table_row, valid_steps, weight_rows
from seqmem.ops.gpu.memory_chunks_step import advance, load_generators
from seqmem.ops.gpu.scans import elimination


@triton.jit
def _load_terms(weight_x, bias, n, H: tl.constexpr, X: tl.constexpr, GATED: tl.constexpr):
    """Return bias and weights of the gates' terms in x, candidate and gate in turn."""
    terms = ()
    if weight_x is not None:
        for part in tl.static_range(2 if GATED else 1):
            if bias is not None:
                terms = append(terms, tl.load(bias + part * H + n, mask=n < H, other=0.0))
            else:
                terms = append(terms, tl.load(weight_x + n, mask=n < 0, other=0.0))
        for channel in tl.static_range(X):
            for part in tl.static_range(2 if GATED else 1):
                row = (2 if GATED else 1) * channel + part
                terms = append(terms, tl.load(weight_x + row * H + n, mask=n < H, other=0.0))
    return terms


@triton.jit
def _load_gates(gates, product, x, terms, place, n, keep, H: tl.constexpr, X: tl.constexpr, GATED: tl.constexpr):
    """Return the inputs of candidate and gate at a place of (B C, R); without gate the second is that of the candidate."""
    inside = (n < H) & keep
    at = place * ((2 if GATED else 1) * H) + n
    if x is not None:
        c = terms[0]
        g = terms[1] if GATED else c
        for channel in tl.static_range(X):
            value = tl.load(x + place * X + channel, mask=keep, other=0.0)
            c += terms[(2 if GATED else 1) * (channel + 1)] * value
            if GATED:
                g += terms[2 * channel + 3] * value
    else:
        c = tl.load(gates + at, mask=inside, other=0.0)
        g = c
        if GATED:
            g = tl.load(gates + at + H, mask=inside, other=0.0)
    if product is not None:
        c += tl.load(product + at, mask=inside, other=0.0)
        if GATED:
            g += tl.load(product + at + H, mask=inside, other=0.0)
    return c, g


@triton.jit
def _store_step(
    h, c, g, outputs, gates, t, at, row, n, stride, width, H: tl.constexpr, GATED: tl.constexpr, SAVE: tl.constexpr
):
    """Store the output of a step, and what backward needs."""
    inside = n < H
    tl.store(outputs + row * stride + t * width + n, h, mask=inside)
    if SAVE:
        tl.store(gates + at + n, c, mask=inside)
        if GATED:
            tl.store(gates + at + H + n, g, mask=inside)


@triton.jit
def _run_steps(
    h, table, feedback, weight_uh, free_inputs, gates, product, x, terms, outputs, inputs, row, n, start, count, valid,
    stride, width, stride_u, H: tl.constexpr, M: tl.constexpr, C: tl.constexpr, X: tl.constexpr, GATED: tl.constexpr,
    STATIONARY: tl.constexpr, SAVE: tl.constexpr, ACTIVATION_U: tl.constexpr, ACTIVATION_H: tl.constexpr,
):  # fmt: skip
    """Compute the valid steps of a chunk of several steps; return the hidden state after them."""
    R: tl.constexpr = (2 if GATED else 1) * H
    PARTS: tl.constexpr = 2 if GATED else 1
    w = weight_rows(weight_uh, n, H, M)
    us = ()
    for _ in tl.static_range((C - 1) * M):
        us = append(us, tl.sum(h, 0) * 0.0)
    entries = table_row(table, 0, count, n, H, M, C, GATED, STATIONARY)
    next_c, next_g = _load_gates(gates, product, x, terms, row * C, n, valid > 0, H, X, GATED)
    for j in range(valid):
        t = start + j
        at = (row * C + j) * R
        now = entries
        c, g = next_c, next_g
        if not STATIONARY:
            entries = table_row(table, j + 1, count, n, H, M, C, GATED, STATIONARY)
        next_c, next_g = _load_gates(gates, product, x, terms, row * C + j + 1, n, j + 1 < valid, H, X, GATED)
        if table is not None:
            for back in tl.static_range(1, C):
                for k in tl.static_range(M):
                    c += now[PARTS * (back * M + k)].to(h.dtype) * us[(back - 1) * M + k]
                    if GATED:
                        g += now[PARTS * (back * M + k) + 1].to(h.dtype) * us[(back - 1) * M + k]
        fresh = ()
        for k in tl.static_range(M):
            u = tl.load(inputs + row * stride_u + t * M + k)
            if feedback is not None:
                u += tl.load(free_inputs + (row * C + j) * M + k)
                for back in tl.static_range(1, C):
                    u += fed_back(feedback, j, back, k, M, STATIONARY) * us[(back - 1) * M + k]
            if weight_uh is not None:
                u += tl.sum(h * w[k], 0)
            u = activate(u, ACTIVATION_U)
            fresh = append(fresh, u)
            if weight_uh is None:
                tl.debug_barrier()  # no sum has synchronised the warps: all load the place before one stores it
            tl.store(inputs + row * stride_u + t * M + k, u)
            if table is not None:
                c += now[PARTS * k].to(h.dtype) * u
                if GATED:
                    g += now[PARTS * k + 1].to(h.dtype) * u
        for k in tl.static_range((C - 2) * M):
            fresh = append(fresh, us[k])
        us = fresh
        c = activate(c, ACTIVATION_H)
        if GATED:
            g = tl.sigmoid(g)
            h += g * (c - h)
        else:
            h = c
        _store_step(h, c, g, outputs, gates, t, at, row, n, stride, width, H, GATED, SAVE)
    return h


@triton.jit
def _run_step(
    h, table, weight_uh, free_inputs, gates, product, x, terms, outputs, inputs, row, n, t, stride, width, stride_u,
    H: tl.constexpr, M: tl.constexpr, X: tl.constexpr, GATED: tl.constexpr, SAVE: tl.constexpr,
    ACTIVATION_U: tl.constexpr, ACTIVATION_H: tl.constexpr,
):  # fmt: skip
    """Compute the step of a chunk of one; return the hidden state after it."""
    R: tl.constexpr = (2 if GATED else 1) * H
    inside = n < H
    c, g = _load_gates(gates, product, x, terms, row, n, row >= 0, H, X, GATED)
    for k in range(M):
        place = inputs + row * stride_u + t * M + k
        u = tl.load(place)
        if free_inputs is not None:
            u += tl.load(free_inputs + row * M + k)
        if weight_uh is not None:
            u += tl.sum(h * tl.load(weight_uh + k * H + n, mask=inside, other=0.0), 0)
        u = activate(u, ACTIVATION_U)
        if weight_uh is None:
            tl.debug_barrier()  # no sum has synchronised the warps: all load the place before one stores it
        tl.store(place, u)
        if table is not None:
            c += tl.load(table + k * R + n, mask=inside, other=0.0).to(h.dtype) * u
            if GATED:
                g += tl.load(table + k * R + H + n, mask=inside, other=0.0).to(h.dtype) * u
    c = activate(c, ACTIVATION_H)
    if GATED:
        g = tl.sigmoid(g)
        h += g * (c - h)
    else:
        h = c
    _store_step(h, c, g, outputs, gates, t, row * R, row, n, stride, width, H, GATED, SAVE)
    return h


@triton.jit(do_not_specialize=("start", "count", "next_count", "stride_u"))
def forward_chunk(
    gates, product, x, weight_x, bias, table, feedback, impulses, free, free_half, free_inputs, before, after, hidden,
    outputs, inputs, lengths, weight_uh, weight_um, generators, sizes, elimination, start, count, next_count, stride, width,
    stride_u,
    H: tl.constexpr, N: tl.constexpr, M: tl.constexpr, C: tl.constexpr, X: tl.constexpr, GATED: tl.constexpr,
    STATIONARY: tl.constexpr, SAVE: tl.constexpr, ACTIVATION_U: tl.constexpr, ACTIVATION_H: tl.constexpr,
    BLOCK_H: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Compute a chunk's steps, the memory after it, and the free evolution of the next chunk."""
    row = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, BLOCK_H)
    valid = valid_steps(lengths, row, start, count)
    h = tl.load(hidden + row * H + n, mask=n < H, other=0.0)
    terms = _load_terms(weight_x, bias, n, H, X, GATED)
    if C == 1:
        if valid > 0:
            h = _run_step(
                h, table, weight_uh, free_inputs, gates, product, x, terms, outputs, inputs, row, n, start, stride, width,
                stride_u, H, M, X, GATED, SAVE, ACTIVATION_U, ACTIVATION_H,
            )  # fmt: skip
    else:
        h = _run_steps(
            h, table, feedback, weight_uh, free_inputs, gates, product, x, terms, outputs, inputs, row, n, start, count,
            valid, stride, width, stride_u, H, M, C, X, GATED, STATIONARY, SAVE, ACTIVATION_U, ACTIVATION_H,
        )  # fmt: skip
    tl.store(hidden + row * H + n, h, mask=n < H)
    tl.debug_barrier()

    n = tl.arange(0, BLOCK_N)
    inside = n < N
    ended = valid == C if STATIONARY else valid > 0
    last = tl.maximum(valid - 1, 0)
    if sizes is not None:
        rows = load_generators(generators, n, N)
    for k in range(M):
        here = row * M + k
        m = tl.load(before + here * N + n, mask=inside, other=0.0)
        reached = here * N if STATIONARY else ((row * C + last) * M + k) * N
        y = tl.load(free + reached + n, mask=inside & ended, other=0.0)
        for i in tl.static_range(C):
            keep = ended & (i < valid)
            at = last - i if STATIONARY else last * (last + 1) // 2 + i
            u = tl.load(inputs + row * stride_u + (start + i) * M + k, mask=keep, other=0.0)
            y += tl.load(impulses + at * N + n, mask=inside & keep, other=0.0) * u
        m = tl.where(ended, y, m)
        tl.store(after + here * N + n, m, mask=inside)
        if sizes is not None:
            tl.debug_barrier()
            for j in range(next_count):
                place = (row * C + j) * M + k
                if weight_um is not None:
                    fed = tl.load(weight_um + k * N + n, mask=inside, other=0.0)
                    tl.store(free_inputs + place, tl.sum(fed * m, 0))
                m = advance(m, 0.0, rows, sizes, elimination, start + count + j, n, N)
                tl.store(free + place * N + n, m, mask=inside)
                if free_half is not None:
                    tl.store(free_half + place * N + n, m.to(free_half.dtype.element_ty), mask=inside)
        elif STATIONARY and free_half is not None:
            tl.store(free_half + here * N + n, m.to(free_half.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=("start", "batch", "steps", "stride_u"))
def evolve(
    memory, out, half, fed, inputs, weight_um, generators, sizes, elimination, start, batch, steps, stride_u,
    N: tl.constexpr, M: tl.constexpr, C: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Compute the memory after each step of a chunk; one program a chunk, row and memory."""
    program = tl.program_id(0).to(tl.int64)
    k = program % M
    group_row = program // M
    group = group_row // batch
    row = group_row % batch
    n = tl.arange(0, BLOCK_N)
    inside = n < N
    rows = load_generators(generators, n, N)
    x = tl.load(memory + program * N + n, mask=inside, other=0.0)
    for j in range(C):
        t = start + group * C + j
        place = (group_row * C + j) * M + k
        u = tl.sum(x, 0) * 0.0
        if inputs is not None:
            u = tl.load(inputs + row * stride_u + t * M + k, mask=t < steps, other=0.0)
        if fed is not None:
            weight = tl.load(weight_um + k * N + n, mask=inside, other=0.0)
            tl.store(fed + place, tl.sum(weight * x, 0))
        x = advance(x, u, rows, sizes, elimination, t, n, N)
        tl.store(out + place * N + n, x, mask=inside)
        if half is not None:
            tl.store(half + place * N + n, x.to(half.dtype.element_ty), mask=inside)


@triton.jit
def eliminate(generators, sizes, out, N: tl.constexpr, BLOCK_N: tl.constexpr):
    """Compute the elimination of a step in float64; one program a step."""
    t = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, BLOCK_N)
    inside = n < N
    p, q, d, g, h, _ = load_generators(generators, n, N)
    a, s, inverse = elimination(p, q, d, g, h, tl.load(sizes + 3 * t + 1), n, BLOCK_N)
    row = out + t * (3 * N) + n
    tl.store(row, a, mask=inside)
    tl.store(row + N, s, mask=inside)
    tl.store(row + 2 * N, inverse, mask=inside)
