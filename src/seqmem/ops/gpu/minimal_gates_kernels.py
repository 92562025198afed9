"""Triton kernels of the recurrence of minGRU and minLSTM with its gates; organised as ``diagonal_scan_kernels.py``."""

import triton
import triton.language as tl

from seqmem.ops.gpu.memory_chunks_device import append
from seqmem.ops.gpu.scan_steps import place, softplus, valid_in


@triton.jit
def _load_gates(projected, at, n, size, keep, WIDE: tl.constexpr, GATES: tl.constexpr):
    """Return k_h and the inputs of the gates at a place of (B, T); a gru has one gate, which stands twice."""
    COUNT: tl.constexpr = 2 if GATES == "gru" else 3
    here = projected + at * (COUNT * size) + n
    k_h = tl.load(here, mask=keep, other=0.0).to(WIDE)
    first = tl.load(here + size, mask=keep, other=0.0).to(WIDE)
    second = first
    if GATES != "gru":
        second = tl.load(here + 2 * size, mask=keep, other=0.0).to(WIDE)
    return k_h, first, second


@triton.jit
def _gates(first, second, GATES: tl.constexpr):
    """Return a and i of h' = a h + i g(k_h)."""
    if GATES == "gru":
        a, i = tl.sigmoid(-first), tl.sigmoid(first)
    elif GATES == "lstm_raw":
        a, i = tl.sigmoid(first), tl.sigmoid(second)
    else:
        difference = softplus(-first) - softplus(-second)
        a, i = tl.sigmoid(-difference), tl.sigmoid(difference)
    return a, i


@triton.jit
def _candidate(k):
    """Return g(k) and its derivative."""
    s = tl.sigmoid(k)
    return tl.where(k >= 0.0, k + 0.5, s), tl.where(k >= 0.0, 1.0, s * (1.0 - s))


@triton.jit(do_not_specialize=("steps",))
def minimal_gates_forward(
    projected, initial, lengths, outputs, final, steps, size,
    GATES: tl.constexpr, BLOCK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Compute h and the final state."""
    WIDE: tl.constexpr = final.dtype.element_ty
    row = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = n < size
    valid = valid_in(lengths, row, steps)
    h = tl.zeros((BLOCK,), WIDE)
    if initial is not None:
        h = tl.load(initial + row * size + n, mask=inside, other=0.0).to(WIDE)
    for begin in range(0, steps, GROUP):
        terms = ()
        for k in tl.static_range(GROUP):
            at = place(row, begin + k, steps, valid, False)
            k_h, first, second = _load_gates(projected, at, n, size, inside & (begin + k < valid), WIDE, GATES)
            terms = append(append(append(terms, k_h), first), second)
        for k in tl.static_range(GROUP):
            now = begin + k < valid
            a, i = _gates(terms[3 * k + 1], terms[3 * k + 2], GATES)
            candidate, _ = _candidate(terms[3 * k])
            h = tl.where(now, a * h + i * candidate, h)
            at = place(row, begin + k, steps, valid, False) * size + n
            tl.store(outputs + at, tl.where(now, h, 0.0), mask=inside & (begin + k < steps))
    tl.store(final + row * size + n, h, mask=inside)


@triton.jit
def _gate_gradients(e, before, candidate, a, i, first, second, GATES: tl.constexpr):
    """Return the gradients of the inputs of the gates, from e of h' and the state before."""
    if GATES == "gru":
        d_first = a * i * e * (candidate - before)
        d_second = d_first
    elif GATES == "lstm_raw":
        d_first = a * (1.0 - a) * e * before
        d_second = i * (1.0 - i) * e * candidate
    else:
        d = a * i * e * (candidate - before)
        d_first = -d * tl.sigmoid(-first)
        d_second = d * tl.sigmoid(-second)
    return d_first, d_second


@triton.jit(do_not_specialize=("steps",))
def minimal_gates_backward(
    grad_outputs, grad_final, outputs, projected, initial, lengths, grad_projected, grad_initial, steps, size,
    GATES: tl.constexpr, BLOCK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Compute the gradients."""
    WIDE: tl.constexpr = outputs.dtype.element_ty
    COUNT: tl.constexpr = 2 if GATES == "gru" else 3
    row = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = n < size
    valid = valid_in(lengths, row, steps)
    start, d = tl.zeros((BLOCK,), WIDE), tl.zeros((BLOCK,), WIDE)
    if initial is not None:
        start = tl.load(initial + row * size + n, mask=inside, other=0.0).to(WIDE)
    if grad_final is not None:
        d = tl.load(grad_final + row * size + n, mask=inside, other=0.0).to(WIDE)
    groups = tl.cdiv(steps, GROUP)
    for group in range(groups):
        begin = (groups - 1 - group) * GROUP
        terms = ()
        for k in tl.static_range(GROUP):
            s = begin + k
            now = inside & (s < valid)
            at = place(row, s, steps, valid, False)
            k_h, first, second = _load_gates(projected, at, n, size, now, WIDE, GATES)
            g = tl.zeros((BLOCK,), WIDE)
            if grad_outputs is not None:
                g = tl.load(grad_outputs + at * size + n, mask=now, other=0.0).to(WIDE)
            before = tl.load(outputs + (at - 1) * size + n, mask=now & (s > 0), other=0.0)
            terms = append(append(append(terms, k_h), first), second)
            terms = append(append(terms, g), tl.where(s > 0, before, start))
        for k in tl.static_range(GROUP - 1, -1, -1):
            now = begin + k < valid
            first, second, before = terms[5 * k + 1], terms[5 * k + 2], terms[5 * k + 4]
            a, i = _gates(first, second, GATES)
            candidate, slope = _candidate(terms[5 * k])
            e = tl.where(now, terms[5 * k + 3] + d, 0.0)
            d_first, d_second = _gate_gradients(e, before, candidate, a, i, first, second, GATES)
            here = grad_projected + place(row, begin + k, steps, valid, False) * (COUNT * size) + n
            exists = inside & (begin + k < steps)
            tl.store(here, i * slope * e, mask=exists)
            tl.store(here + size, d_first, mask=exists)
            if GATES != "gru":
                tl.store(here + 2 * size, d_second, mask=exists)
            d = tl.where(now, a * e, d)
    if grad_initial is not None:
        tl.store(grad_initial + row * size + n, d, mask=inside)
