"""The HiPPO recurrent network: one step, the reference sequence, and the fused one.

Gu, Dao, Ermon, Rudra and Re, "HiPPO: Recurrent Memory with Optimal Polynomial Projections" (2020), section 3.1 and figure 2.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from seqmem.data.masks import masked
from seqmem.ops.activations import Activation, activation
from seqmem.ops.compiled_sequence import chunk_steps, padded_size, products_in_half, register_sequence
from seqmem.ops.discretization import Discretization, alpha_of
from seqmem.ops.loop import run_steps, stacked


def memory_network_step(
    projected: Tensor,
    hidden: Tensor,
    memory: Tensor,
    update_memory: Callable[[Tensor, Tensor], Tensor],
    *,
    weight_uh: Tensor | None = None,
    weight_um: Tensor | None = None,
    weight_hm: Tensor | None = None,
    weight_hh: Tensor | None = None,
    memory_activation: Activation = "id",
    hidden_activation: Activation = "tanh",
) -> tuple[Tensor, Tensor]:
    """Compute one step::

        u = act_m(W_ux x + W_uh h + <W_um, m> + b_u)            in R^M
        m' = update_memory(m, u)
        c = act_h(W_hx x + W_hm vec(m') + W_hh h + b_h)
        g = sigmoid(W_gx x + W_gm vec(m') + W_gh h + b_g)
        h' = (1 - g) h + g c                                    (without gate: h' = c)

    Args:
        projected: all terms in x and the biases, (B, M + R), R = 2H with gate (rows of the candidate, then the gate), else H.
        hidden: h, (B, H).
        memory: m, (B, M, N).
        update_memory: the memory's linear update: maps m (B, M, N) and its inputs u (B, M) to m' (B, M, N).
        weight_uh: (M, H); this weight and those below are None if they are switched off.
        weight_um: (M, N).
        weight_hm: (R, M N).
        weight_hh: (R, H).
        memory_activation: act_m.
        hidden_activation: act_h.

    Returns:
        h' (B, H) and m' (B, M, N).
    """
    size = memory.shape[1]
    memory_input, gates = projected.split([size, projected.shape[-1] - size], -1)
    if weight_uh is not None:
        memory_input = memory_input + linear(hidden, weight_uh)
    if weight_um is not None:
        memory_input = memory_input + (memory * weight_um).sum(-1)
    # Under autocast products are in half precision; the state keeps its own.
    memory_input = activation(memory_activation)(memory_input).to(memory.dtype)
    memory = update_memory(memory, memory_input)

    if weight_hm is not None:
        gates = gates + linear(memory.flatten(1).to(weight_hm.dtype), weight_hm)
    if weight_hh is not None:
        gates = gates + linear(hidden, weight_hh)
    candidate, *gate = gates.to(hidden.dtype).split(hidden.shape[1], -1)
    candidate = activation(hidden_activation)(candidate)
    return torch.lerp(hidden, candidate, torch.sigmoid(gate[0])) if gate else candidate, memory


def memory_projection(
    inputs: Tensor,
    weight_ux: Tensor | None,
    bias_u: Tensor | None,
    weight_hx: Tensor | None,
    bias_h: Tensor | None,
    sizes: tuple[int, int],
) -> Tensor:
    """Compute the terms of a step in x, biases included, for the memory's input and then the gates.

    Args:
        inputs: x, (..., C).
        weight_ux: (M, C); this and the following are None if they are switched off.
        bias_u: (M,).
        weight_hx: (R, C).
        bias_h: (R,).
        sizes: M and R.

    Returns:
        (..., M + R).
    """
    given = ((weight_ux, bias_u, sizes[0]), (weight_hx, bias_h, sizes[1]))
    weights = [inputs.new_zeros(rows, inputs.shape[-1]) if weight is None else weight for weight, _, rows in given]
    biases = [inputs.new_zeros(rows) if bias is None else bias for _, bias, rows in given]
    return linear(inputs, torch.cat(weights), torch.cat(biases))


def memory_network_reference(
    inputs: Tensor,
    hidden: Tensor,
    memory: Tensor,
    lengths: Tensor | None = None,
    *,
    step_sizes: Tensor | None = None,
    generators: Tensor | None = None,
    discretization: Discretization = "bilinear",
    step: Tensor | None = None,
    drive: Tensor | None = None,
    weight_ux: Tensor | None = None,
    weight_uh: Tensor | None = None,
    weight_um: Tensor | None = None,
    bias_u: Tensor | None = None,
    weight_hx: Tensor | None = None,
    weight_hm: Tensor | None = None,
    weight_hh: Tensor | None = None,
    bias_h: Tensor | None = None,
    memory_activation: Activation = "id",
    hidden_activation: Activation = "tanh",
    gated: bool = True,
    memory_output: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute a whole sequence by :func:`memory_network_step`, with dense matrices for the memory.

    Arguments and results are those of :func:`memory_network_sequence`.
    """
    rows = (1 + gated) * hidden.shape[1]
    projected = memory_projection(
        masked(inputs, lengths).transpose(0, 1), weight_ux, bias_u, weight_hx, bias_h, (memory.shape[1], rows)
    )
    if step is not None and drive is not None:
        A, B = step.to(memory), drive.to(memory)
        updates: Any = [lambda m, u: m @ A.T + u[..., None] * B] * inputs.shape[1]
    else:
        assert step_sizes is not None
        assert generators is not None
        A, B = dense_transition(generators.to(memory)), generators[5].to(memory)
        updates = [_dense_update(A, B, size.to(memory), alpha_of(discretization) or 0.0) for size in step_sizes]

    def one_step(item: Any, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        after = memory_network_step(
            item[0],
            *state,
            item[1],
            weight_uh=weight_uh,
            weight_um=weight_um,
            weight_hm=weight_hm,
            weight_hh=weight_hh,
            memory_activation=memory_activation,
            hidden_activation=hidden_activation,
        )
        return torch.cat([after[0], after[1].flatten(1)], -1) if memory_output else after[0], after

    items = zip(projected.unbind(0), updates, strict=True)
    outputs, after = run_steps(one_step, items, (hidden, memory), lengths, inputs.shape[1])
    width = hidden.shape[1] + (memory.shape[1] * memory.shape[2] if memory_output else 0)
    return stacked(outputs, inputs, width), *after


def dense_transition(generators: Tensor) -> Tensor:
    """Compute A (N, N) from the generators p, q, d, g, h, B (6, N) of :func:`seqmem.ops.generators`.

    A_nk = -p_n q_k (n > k), -d_n (n = k), -g_n h_k (n < k).
    """
    p, q, d, g, h, _ = generators
    return -(torch.tril(torch.outer(p, q), -1) + torch.diag(d) + torch.triu(torch.outer(g, h), 1))


def _dense_update(A: Tensor, B: Tensor, step_size: Tensor, alpha: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the update (I - alpha dt A) m' = (I + (1 - alpha) dt A) m + dt B u; for an infinite dt m' = u e_0."""
    identity = torch.eye(len(B), dtype=B.dtype, device=B.device)
    starts = torch.isinf(step_size)
    dt = step_size.where(~starts, 0).view(-1, 1, 1)  # (B, 1, 1), or (1, 1, 1) if all rows share it

    def update(m: Tensor, u: Tensor) -> Tensor:
        explicit = m + (1 - alpha) * dt * (m @ A.T) + dt * u[..., None] * B
        updated = torch.linalg.solve(identity - alpha * dt * A.T, explicit, left=False) if alpha > 0 else explicit
        return torch.where(starts.view(-1, 1, 1), pad(u[..., None], (0, len(B) - 1)), updated)

    return update


def memory_network_sequence(
    inputs: Tensor,
    hidden: Tensor,
    memory: Tensor,
    lengths: Tensor | None = None,
    *,
    step_sizes: Tensor | None = None,
    generators: Tensor | None = None,
    discretization: Discretization = "bilinear",
    step: Tensor | None = None,
    drive: Tensor | None = None,
    weight_ux: Tensor | None = None,
    weight_uh: Tensor | None = None,
    weight_um: Tensor | None = None,
    bias_u: Tensor | None = None,
    weight_hx: Tensor | None = None,
    weight_hm: Tensor | None = None,
    weight_hh: Tensor | None = None,
    bias_h: Tensor | None = None,
    memory_activation: Activation = "id",
    hidden_activation: Activation = "tanh",
    gated: bool = True,
    memory_output: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the HiPPO recurrent network over a whole sequence, in ``csrc/sequence_run.cpp``.

    The memory follows either from generators and step sizes, at O(N) a step, or from one matrix for all steps.

    Args:
        inputs: (B, T, C) in the type of all other tensors, float32 or float64; under autocast also bfloat16.
        hidden: (B, H) before the first step.
        memory: (B, M, N) before the first step.
        lengths: (B,) int64 valid steps of each row; None if all T are valid.
        step_sizes: (T,), or (T, B) if rows are at different times; float64. An infinite one starts the memory with u e_0.
        generators: (6, N) float64, see :func:`seqmem.ops.generators`; required with ``step_sizes``.
        discretization: forward, backward, bilinear, or alpha of the general bilinear transform; used with ``step_sizes``.
        step: A_d (N, N) float64 of m' = A_d m + B_d u; instead of step sizes and generators.
        drive: B_d (N,) float64; required with ``step``.
        weight_ux: (M, C); this weight and those below are None if they are switched off.
        weight_uh: (M, H).
        weight_um: (M, N).
        bias_u: (M,).
        weight_hx: (R, C), R = 2H with gate (rows of the candidate, then of the gate), H without.
        weight_hm: (R, M N).
        weight_hh: (R, H).
        bias_h: (R,).
        memory_activation: activation of the memory's input: id, tanh, relu or sigmoid.
        hidden_activation: activation of the candidate: id, tanh, relu or sigmoid.
        gated: the hidden state has a gate.
        memory_output: output [h, vec(m)] instead of h.

    Returns:
        outputs (B, T, H) or (B, T, H + M N), zero in the padding, and the hidden state and memory after each row's last valid
        step. Differentiable once with respect to the inputs, the state and the weights.

    Raises:
        ValueError: shapes or types that do not match.
    """
    inputs = inputs.to(hidden.dtype)
    weights = (weight_ux, weight_uh, weight_um, bias_u, weight_hx, weight_hm, weight_hh, bias_h)
    outputs, hidden, memory, *_ = torch.ops.seqmem.memory_sequence(
        inputs,
        hidden,
        memory,
        step_sizes,
        generators,
        step,
        drive,
        lengths,
        *weights,
        alpha_of(discretization),
        memory_activation,
        hidden_activation,
        gated,
        memory_output,
        products_in_half(hidden),
        chunk_steps(inputs, hidden, memory, *weights),
    )
    return outputs, hidden, memory


def without_memory(
    inputs: Tensor,
    hidden: Tensor,
    lengths: Tensor | None,
    weight_hx: Tensor,
    weight_hh: Tensor,
    bias_h: Tensor,
    hidden_activation: Activation,
    gated: bool,
) -> tuple[Tensor, Tensor]:
    """Compute :func:`memory_network_sequence` without memory weights.

    The arguments are those of the same names there. Returns outputs (B, T, H), zero in the padding, and the hidden state after
    each row's last valid step.
    """
    outputs, hidden, _ = memory_network_sequence(
        inputs,
        hidden,
        hidden.new_zeros(inputs.shape[0], 1, 1),
        lengths,
        step=hidden.new_zeros(1, 1, dtype=torch.float64),
        drive=hidden.new_zeros(1, dtype=torch.float64),
        weight_hx=weight_hx,
        weight_hh=weight_hh,
        bias_h=bias_h,
        hidden_activation=hidden_activation,
        gated=gated,
    )
    return outputs, hidden


def _shapes(inputs: Tensor, hidden: Tensor, memory: Tensor, *others: Any) -> tuple[Tensor, ...]:
    *_, gated, memory_output, _, steps_of_chunk = others
    batch, steps = inputs.shape[:2]
    saved = steps if steps_of_chunk > 0 else 0
    chunks = -(-saved // max(1, steps_of_chunk))
    rows = 2 if gated else 1
    width = hidden.shape[1] + (memory.shape[1] * memory.shape[2] if memory_output else 0)
    return (
        inputs.new_empty(batch, steps, width),
        hidden.new_empty(hidden.shape),
        memory.new_empty(memory.shape),
        inputs.new_empty(saved, batch, rows, padded_size(hidden)),
        inputs.new_empty(saved, batch, memory.shape[1]),
        inputs.new_empty(chunks, *memory.shape),
    )


register_sequence("memory_sequence", 2, _shapes)
