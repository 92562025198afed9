"""Triton kernels of the selective scan and of its gradient: one program for a row and a block of its D channels.

A program, of one warp unless N is large, holds the N states of its channels in registers, as a tile (N, BLOCK). Backward has
the state before each chunk of steps; it computes the others of a chunk again, into a buffer of one chunk. The loads of a group
of steps do not depend on the state, and no store stands between them, so that they are under way together.
"""

import triton
import triton.language as tl

from seqmem.ops.gpu.memory_chunks_device import append
from seqmem.ops.gpu.scan_steps import place, softplus, valid_in


@triton.jit
def _load_step(inputs, delta, b, delta_bias, at, d, n, now, channels, states, WIDE: tl.constexpr, SOFTPLUS: tl.constexpr):
    """Return u, the input of the softplus, the step size, zero where ``now`` is false, and b at a place of (B, T)."""
    inside = (d < channels) & now
    u = tl.load(inputs + at * channels + d, mask=inside, other=0.0).to(WIDE)
    raw = tl.load(delta + at * channels + d, mask=inside, other=0.0).to(WIDE)
    if delta_bias is not None:
        raw += tl.load(delta_bias + d, mask=inside, other=0.0).to(WIDE)
    size = raw
    if SOFTPLUS:
        size = tl.where(inside, softplus(raw), 0.0)
    return u, raw, size, tl.load(b + at * states + n, mask=(n < states) & now, other=0.0).to(WIDE)


@triton.jit
def _advance(h, rates, u, size, b):
    """Return the state after a step, and the factors of the state before it."""
    factors = tl.exp(size[None, :] * rates)
    return factors * h + (size * u)[None, :] * b[:, None], factors


@triton.jit(do_not_specialize=("steps",))
def selective_scan_forward(
    inputs, delta, a, b, c, skip, gate, delta_bias, initial, lengths, outputs, final, starts, steps, channels, states,
    SOFTPLUS: tl.constexpr, CHUNK: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Compute y, the final state (B, N, D) and, if there is room, the states before each chunk (B, T / CHUNK, N, D)."""
    WIDE: tl.constexpr = final.dtype.element_ty
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    n = tl.arange(0, BLOCK_N)
    valid = valid_in(lengths, row, steps)
    keep = (n < states)[:, None] & (d < channels)[None, :]
    tile = n[:, None] * channels + d[None, :]
    rates = tl.load(a + tile, mask=keep, other=0.0).to(WIDE)
    h = tl.zeros((BLOCK_N, BLOCK), WIDE)
    if initial is not None:
        h = tl.load(initial + row * states * channels + tile, mask=keep, other=0.0).to(WIDE)
    direct = tl.zeros((BLOCK,), WIDE)
    if skip is not None:
        direct = tl.load(skip + d, mask=d < channels, other=0.0).to(WIDE)
    for begin in range(0, steps, GROUP):
        if starts is not None:  # noqa: SIM102 (known when it is compiled, the other one is not)
            if begin % CHUNK == 0:
                chunk = row * tl.cdiv(steps, CHUNK) + begin // CHUNK
                tl.store(starts + chunk * states * channels + tile, h, mask=keep)
        results = ()
        for k in tl.static_range(GROUP):
            now = begin + k < valid
            at = place(row, begin + k, steps, valid, False)
            u, _, size, b_t = _load_step(
                inputs, delta, b, delta_bias, at, d, n, now, channels, states, WIDE, SOFTPLUS
            )  # fmt: skip
            c_t = tl.load(c + at * states + n, mask=(n < states) & now, other=0.0).to(WIDE)
            h, _ = _advance(h, rates, u, size, b_t)
            y = tl.sum(c_t[:, None] * h, 0) + direct * u
            if gate is not None:
                z = tl.load(gate + at * channels + d, mask=(d < channels) & now, other=0.0).to(WIDE)
                y *= z * tl.sigmoid(z)
            results = append(results, y)
        for k in tl.static_range(GROUP):
            at = place(row, begin + k, steps, valid, False)
            tl.store(outputs + at * channels + d, results[k], mask=(d < channels) & (begin + k < steps))
    tl.store(final + row * states * channels + tile, h, mask=keep)


@triton.jit
def _recompute(
    h, inputs, delta, b, delta_bias, scratch, rates, tile, keep, row, first, valid, d, n, steps, channels, states,
    SOFTPLUS: tl.constexpr, CHUNK: tl.constexpr, GROUP: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Store the states before each step of a chunk."""
    for begin in range(0, CHUNK, GROUP):
        results = ()
        for k in tl.static_range(GROUP):
            s = first + begin + k
            at = place(row, s, steps, valid, False)
            u, _, size, b_t = _load_step(
                inputs, delta, b, delta_bias, at, d, n, s < valid, channels, states, WIDE, SOFTPLUS
            )  # fmt: skip
            results = append(results, h)
            h, _ = _advance(h, rates, u, size, b_t)
        for k in tl.static_range(GROUP):
            tl.store(scratch + (row * CHUNK + begin + k) * states * channels + tile, results[k], mask=keep)


@triton.jit
def _gate_slope(z, contracted, g):
    """Return the gradients of contracted and of z, from that of contracted SiLU(z)."""
    s = tl.sigmoid(z)
    return g * z * s, g * contracted * s * (1.0 + z * (1.0 - s))


@triton.jit(do_not_specialize=("steps",))
def selective_scan_backward(
    grad_outputs, grad_final, starts, scratch, inputs, delta, a, b, c, skip, gate, delta_bias, lengths, grad_inputs, grad_delta,
    grad_a, grad_b, grad_c, grad_skip, grad_gate, grad_delta_bias, grad_initial, steps, channels, states,
    SOFTPLUS: tl.constexpr, CHUNK: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Compute the gradients.

    Those of a (B, N, D), and of skip and delta_bias (B, D), are sums over the row's steps; those of b and c
    (D / BLOCK, B, T, N) are sums over channels.
    """
    WIDE: tl.constexpr = starts.dtype.element_ty
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    n = tl.arange(0, BLOCK_N)
    valid = valid_in(lengths, row, steps)
    part = tl.program_id(1) * tl.num_programs(0).to(tl.int64) * steps
    keep = (n < states)[:, None] & (d < channels)[None, :]
    tile = n[:, None] * channels + d[None, :]
    rates = tl.load(a + tile, mask=keep, other=0.0).to(WIDE)
    carry = tl.zeros((BLOCK_N, BLOCK), WIDE)
    if grad_final is not None:
        carry = tl.load(grad_final + row * states * channels + tile, mask=keep, other=0.0).to(WIDE)
    sum_a = tl.zeros((BLOCK_N, BLOCK), WIDE)
    direct, sum_skip, sum_bias = tl.zeros((BLOCK,), WIDE), tl.zeros((BLOCK,), WIDE), tl.zeros((BLOCK,), WIDE)
    if skip is not None:
        direct = tl.load(skip + d, mask=d < channels, other=0.0).to(WIDE)
    chunks = tl.cdiv(steps, CHUNK)
    for done in range(chunks):
        first = (chunks - 1 - done) * CHUNK
        start = starts + (row * chunks + chunks - 1 - done) * states * channels
        h = tl.load(start + tile, mask=keep, other=0.0)
        _recompute(
            h, inputs, delta, b, delta_bias, scratch, rates, tile, keep, row, first, valid, d, n, steps, channels, states,
            SOFTPLUS, CHUNK, GROUP, WIDE,
        )  # fmt: skip
        tl.debug_barrier()  # the buffer is read by the threads that wrote it, or by others of the program
        count = tl.minimum(steps - first, CHUNK)
        for back in range(count):
            s = first + count - 1 - back
            now = s < valid
            inside = (d < channels) & now
            at = place(row, s, steps, valid, False)
            h = tl.load(scratch + (row * CHUNK + s - first) * states * channels + tile, mask=keep, other=0.0)
            u, raw, size, b_t = _load_step(
                inputs, delta, b, delta_bias, at, d, n, now, channels, states, WIDE, SOFTPLUS
            )  # fmt: skip
            c_t = tl.load(c + at * states + n, mask=(n < states) & now, other=0.0).to(WIDE)
            e = tl.zeros((BLOCK,), WIDE)
            if grad_outputs is not None:
                e = tl.load(grad_outputs + at * channels + d, mask=inside, other=0.0).to(WIDE)
            after, factors = _advance(h, rates, u, size, b_t)
            exists = (d < channels) & (s < steps)
            if gate is not None:
                z = tl.load(gate + at * channels + d, mask=inside, other=0.0).to(WIDE)
                e, d_gate = _gate_slope(z, tl.sum(c_t[:, None] * after, 0) + direct * u, e)
                tl.store(grad_gate + at * channels + d, d_gate, mask=exists)
            d_after = c_t[:, None] * e[None, :] + carry
            d_factors = d_after * factors * h
            d_term = tl.sum(d_after * b_t[:, None], 0)
            d_size = tl.sum(d_factors * rates, 0) + d_term * u
            if SOFTPLUS:
                d_size *= tl.sigmoid(raw)
            d_size = tl.where(now, d_size, 0.0)
            sum_a += d_factors * size[None, :]
            sum_skip += e * u
            sum_bias += d_size
            tl.store(grad_inputs + at * channels + d, d_term * size + direct * e, mask=exists)
            tl.store(grad_delta + at * channels + d, d_size, mask=exists)
            states_exist = (n < states) & (s < steps)
            here = (part + at) * states + n
            tl.store(grad_b + here, tl.sum(d_after * (size * u)[None, :], 1), mask=states_exist)
            tl.store(grad_c + here, tl.sum(after * e[None, :], 1), mask=states_exist)
            carry = factors * d_after
        tl.debug_barrier()  # before the next chunk writes to the buffer
    tl.store(grad_a + row * states * channels + tile, sum_a, mask=keep)
    if skip is not None:
        tl.store(grad_skip + row * channels + d, sum_skip, mask=d < channels)
    if delta_bias is not None:
        tl.store(grad_delta_bias + row * channels + d, sum_bias, mask=d < channels)
    if grad_initial is not None:
        tl.store(grad_initial + row * states * channels + tile, carry, mask=keep)
