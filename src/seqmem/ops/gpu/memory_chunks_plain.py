"""The kernels of the HiPPO network in chunks in plain torch operations, the reference of the Triton kernels.

Their arguments are those of the kernels of the same names in ``memory_chunks_launch.py``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import solve_ex

from seqmem.ops.activations import activation
from seqmem.ops.gpu.memory_chunks_layout import Network, squared


@dataclass(frozen=True)
class Tables:
    """Impulses of a chunk, and their products with the weights; a group of chunks has one more dimension, of 1 if shared.

    Attributes:
        impulses: G, (P, N) for P pairs.
        gates: K = W_hm G, (P, M, R); None without W_hm.
        feedback: W_um G, (P, M); None without W_um.
    """

    impulses: Tensor
    gates: Tensor | None
    feedback: Tensor | None

    def of_chunk(self, place: int) -> "Tables":
        """Return those of one chunk of a group."""
        place = 0 if len(self.impulses) == 1 else place
        gates, feedback = (None if part is None else part[place] for part in (self.gates, self.feedback))
        return Tables(self.impulses[place], gates, feedback)


@dataclass(frozen=True)
class Terms:
    """What the gates' terms in x follow from.

    Attributes:
        inputs: x of a chunk, (B, C, X).
        weight: W_hx, transposed, (X, R).
        bias: b_h, (R,), or None.
    """

    inputs: Tensor
    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class Free:
    """Buffers of the free evolution.

    Attributes:
        memory: F of a chunk, (B, C, M, N); if A is the same at each step, after the whole chunk alone, (B, M, N).
        half: a copy in half precision for products; for a stationary A of the memory before the chunk. None if not needed.
        inputs: W_um F_{j-1}, (B, C, M); None without W_um.
    """

    memory: Tensor
    half: Tensor | None
    inputs: Tensor | None


def eliminate(generators: Tensor, sizes: Tensor) -> Tensor:
    """Compute the elimination of each step in csrc/quasiseparable.h.

    Args:
        generators: (6, N) float64.
        sizes: of :class:`seqmem.ops.gpu.memory_chunks_layout.Evolution`, (T', 3) float64.

    Returns:
        a, s and 1 / D, (T', 3, N).
    """
    p, q, d, g, h, _ = generators
    implicit = sizes[:, 1]
    eliminated, rows = torch.zeros_like(implicit), []
    for n in range(generators.shape[1]):
        t, s = q[n] * implicit - eliminated * h[n], g[n] * implicit - eliminated * p[n]
        inverse = 1 / (1 + d[n] * implicit - eliminated * (p[n] * h[n]))
        rows.append(torch.stack([t * inverse, s, inverse], 1))
        eliminated = eliminated + t * s * inverse
    return torch.stack(rows, 2).contiguous()


def evolve(net: Network, memory: Tensor, first: int, out: Tensor, inputs: Tensor | None = None) -> None:
    """Compute the memory after each step of consecutive chunks.

    Args:
        net: shared arguments, with generators.
        memory: before each chunk, (G, B, M, N).
        first: the first of the G chunks.
        out: (G, B, C, M, N), overwritten.
        inputs: u, (B, T, M); None for the free evolution.
    """
    for group, state in enumerate(memory):
        for j in range(net.chunk):
            t = (first + group) * net.chunk + j
            A, B = dense_step(net, t)
            state = state @ A.T
            if inputs is not None and t < inputs.shape[1]:
                state = state + inputs[:, t, :, None] * B
            out[group, :, j] = state


def dense_step(net: Network, step: int) -> tuple[Tensor, Tensor]:
    """Return A (N, N) and B (N,) of a step from the generators."""
    assert net.evolution is not None
    p, q, d, g, h, b = net.evolution.generators
    A = -(torch.tril(torch.outer(p, q), -1) + torch.diag(d) + torch.triu(torch.outer(g, h), 1))
    size, implicit, started = net.evolution.sizes[step]
    identity = torch.eye(len(b), dtype=b.dtype, device=b.device)
    right = torch.cat([identity + (size - implicit) * A, (size * b)[:, None]], 1)
    both = solve_ex(identity - implicit * A, right)[0]
    begins = torch.cat([torch.zeros_like(A), identity[:, :1]], 1)
    both = torch.where(started > 0, begins, both)
    return both[:, :-1], both[:, -1]


def forward_chunk(
    net: Network,
    index: int,
    tables: Tables,
    free: Free,
    gates: Tensor | None,
    product: Tensor | None,
    terms: Terms | None,
    before: Tensor,
    after: Tensor,
    hidden: Tensor,
    outputs: Tensor,
    inputs: Tensor,
    save: bool,
) -> None:
    """Compute the steps of a chunk, the memory after it, and the free evolution of the next chunk.

    Args:
        net: shared arguments.
        index: of the chunk.
        tables: of the chunk.
        free: of the chunk; overwritten with that of the next one if the generators are given.
        gates: terms of the gates' inputs, (B, C, R); with ``save`` overwritten with candidate and gate. Ignored with ``terms``.
        product: further terms of the gates' inputs, (B, C, R), or None.
        terms: what the terms in x follow from; None if ``gates`` contains them.
        before: memory before the chunk, (B, M, N).
        after: memory after it, overwritten. A row keeps ``before`` if it has no valid step here, or for a stationary A if
            its last valid step is before the end of the chunk.
        hidden: (B, H) before the chunk, overwritten with that after it.
        outputs: (B, T, W), of which the first H columns are overwritten at valid steps.
        inputs: terms of u in x and the biases, (B, T, M), overwritten with u at valid steps.
        save: overwrite ``gates``.
    """
    size, count, start = net.hidden, net.count(index), index * net.chunk
    valid = torch.as_tensor(net.valid(index), device=hidden.device).expand(net.batch)
    K, Z = (
        None if table is None else squared(table.flatten(1), net.chunk, net.stationary)
        for table in (tables.gates, tables.feedback)
    )
    G = squared(tables.impulses, net.chunk, net.stationary)
    state = hidden.clone()
    for j in range(count):
        live = (j < valid)[:, None]
        memory_input = inputs[:, start + j]
        if net.weight_uh is not None:
            memory_input = memory_input + state @ net.weight_uh.T
        if Z is not None and free.inputs is not None:
            memory_input = memory_input + free.inputs[:, j]
            if j > 0:
                memory_input = memory_input + torch.einsum("ik,bik->bk", Z[j - 1, :j], inputs[:, start : start + j])
        memory_input = activation(net.memory_activation)(memory_input)
        inputs[:, start + j] = torch.where(live, memory_input, inputs[:, start + j])
        given = _terms_in_x(gates, terms, j)
        if product is not None:
            given = given + product[:, j]
        if K is not None:
            table = K[j, : j + 1].unflatten(-1, (net.memories, net.rows)).to(given.dtype)
            given = given + torch.einsum("ikr,bik->br", table, inputs[:, start : start + j + 1])
        candidate, *gate = given.split(size, -1)
        candidate = activation(net.hidden_activation)(candidate)
        passed = [candidate, *(torch.sigmoid(part) for part in gate)]
        following = state + passed[1] * (candidate - state) if net.gated else candidate
        state = torch.where(live, following, state)
        outputs[:, start + j, :size] = torch.where(live, state, outputs[:, start + j, :size])
        if save and gates is not None:
            gates[:, j] = torch.where(live, torch.cat(passed, -1), gates[:, j])
    hidden.copy_(state)
    _end_chunk(net, index, G, valid, free, before, after, inputs)
    _begin_next(net, index, free, after)


def _terms_in_x(gates: Tensor | None, terms: Terms | None, step: int) -> Tensor:
    if terms is None:
        assert gates is not None
        return gates[:, step]
    found = terms.inputs[:, step] @ terms.weight
    return found if terms.bias is None else found + terms.bias


def _end_chunk(
    net: Network, index: int, G: Tensor, valid: Tensor, free: Free, before: Tensor, after: Tensor, inputs: Tensor
) -> None:
    u = inputs.new_zeros(net.batch, net.chunk, net.memories)
    u[:, : net.count(index)] = inputs[:, net.span(range(index, index + 1))]
    u = torch.where((torch.arange(net.chunk, device=u.device) < valid[:, None])[..., None], u, 0)
    if net.stationary:
        ended, last = valid == net.chunk, torch.full_like(valid, net.chunk - 1)
        reached = free.memory
    else:
        ended, last = valid > 0, (valid - 1).clamp(min=0)
        reached = free.memory[torch.arange(net.batch, device=u.device), last]
    reached = reached + torch.einsum("bin,bik->bkn", G[last], u)
    after.copy_(torch.where(ended[:, None, None], reached, before))


def _begin_next(net: Network, index: int, free: Free, after: Tensor) -> None:
    if net.stationary and free.half is not None:
        free.half.copy_(after)
    elif net.evolution is not None and index + 1 < net.chunks:
        begin_free(net, index + 1, free, after)


def begin_free(net: Network, index: int, free: Free, memory: Tensor) -> None:
    """Compute the free evolution of a chunk from the generators into ``free``, from the memory before it (B, M, N)."""
    evolve(net, memory[None], index, free.memory[None])
    if free.inputs is not None and net.weight_um is not None:
        earlier = torch.cat([memory[:, None], free.memory[:, :-1]], 1)
        free.inputs.copy_((earlier * net.weight_um).sum(-1))
    if free.half is not None:
        free.half.copy_(free.memory)


def backward_chunk(
    net: Network,
    index: int,
    tables: Tables | None,
    gates: Tensor | None,
    outputs: Tensor,
    first_hidden: Tensor,
    inputs: Tensor,
    grad_outputs: Tensor | None,
    carry: Tensor,
    grad_memory: Tensor,
    grad_inputs: Tensor,
    grad_gates: Tensor | None,
    pulled: Tensor | None,
) -> None:
    """Compute the gradients through the memory of the next chunk by the generators, then those through a chunk's steps.

    Args:
        net: shared arguments.
        index: of the chunk; -1 for the memory of chunk 0 alone.
        tables: of the chunk.
        gates: candidate and gate of its steps, (B, C, R).
        outputs: (B, T, W), whose first H columns are the hidden states.
        first_hidden: hidden state before the sequence, (B, H).
        inputs: u, (B, T, M).
        grad_outputs: (B, T, W), or None.
        carry: gradient of the hidden state after the chunk, (B, H), overwritten with that before it.
        grad_memory: gradient of the memory after the next chunk if ``pulled`` is given, else after this one, (B, M, N);
            overwritten with that after this chunk.
        grad_inputs: (B, T, M); holds the part of du that does not pass through this chunk's gates or end, overwritten with the
            gradient of u before its activation.
        grad_gates: overwritten with the gradients of the gates' inputs, zero in the padding, (B, C, R).
        pulled: gradients of the next chunk's memories by its gates and outputs, (B, C, M, N); None without such a chunk.
    """
    if pulled is not None:
        _memory_before(net, index + 1, grad_memory, grad_inputs, pulled)
    if index < 0:
        return
    assert tables is not None
    assert gates is not None
    assert grad_gates is not None
    start, count = index * net.chunk, net.count(index)
    valid = torch.as_tensor(net.valid(index), device=carry.device).expand(net.batch)
    K, Z = (
        None if table is None else squared(table.flatten(1), net.chunk, net.stationary)
        for table in (tables.gates, tables.feedback)
    )
    G = squared(tables.impulses, net.chunk, net.stationary)
    last = torch.full_like(valid, net.chunk - 1) if net.stationary else (valid - 1).clamp(min=0)
    from_end = torch.einsum("bin,bkn->bik", G[last], grad_memory)
    grad_gates.zero_()
    d = carry.clone()
    for j in reversed(range(count)):
        live = (j < valid)[:, None]
        t = start + j
        candidate, *gate = gates[:, j].split(net.hidden, -1)
        if grad_outputs is not None:
            d = torch.where(live, d + grad_outputs[:, t, : net.hidden], d)
        parts = [d * _slope(net.hidden_activation, candidate)]
        if gate:
            earlier = first_hidden if t == 0 else outputs[:, t - 1, : net.hidden]
            parts = [parts[0] * gate[0], d * (candidate - earlier) * gate[0] * (1 - gate[0])]
        grad_gates[:, j] = torch.where(live, torch.cat(parts, -1), 0).to(grad_gates.dtype)
        du = grad_inputs[:, t] + from_end[:, j]
        if K is not None:
            table = K[j:count, j].unflatten(-1, (net.memories, net.rows)).to(d.dtype)
            du = du + torch.einsum("lkr,blr->bk", table, grad_gates[:, j:count].to(d.dtype))
        if Z is not None and j + 1 < count:
            du = du + torch.einsum("lk,blk->bk", Z[j : count - 1, j], grad_inputs[:, t + 1 : start + count])
        du = torch.where(live, du * _slope(net.memory_activation, inputs[:, t]), 0)
        grad_inputs[:, t] = torch.where(live, du, grad_inputs[:, t])
        following = d * (1 - gate[0]) if gate else torch.zeros_like(d)
        if net.weight_uh is not None:
            following = following + du @ net.weight_uh
        d = torch.where(live, following, d)
    carry.copy_(d)


def _memory_before(net: Network, index: int, grad_memory: Tensor, grad_inputs: Tensor, pulled: Tensor) -> None:
    """Replace the gradient of the memory after a chunk by that before it."""
    valid = torch.as_tensor(net.valid(index), device=grad_memory.device).expand(net.batch)
    for j in reversed(range(net.count(index))):
        t = index * net.chunk + j
        given = grad_memory + pulled[:, j]
        if net.weight_um is not None and j + 1 < net.count(index):
            given = given + grad_inputs[:, t + 1, :, None] * net.weight_um
        grad_memory.copy_(torch.where((j < valid)[:, None, None], given @ dense_step(net, t)[0], grad_memory))
    if net.weight_um is not None:
        grad_memory += torch.where((valid > 0)[:, None, None], grad_inputs[:, index * net.chunk, :, None] * net.weight_um, 0)


def _slope(name: str, value: Tensor) -> Tensor:
    """Return the derivative of an activation from its value."""
    match name:
        case "tanh":
            return 1 - value**2
        case "sigmoid":
            return value * (1 - value)
        case "relu":
            return (value > 0).to(value.dtype)
        case _:
            return torch.ones_like(value)
