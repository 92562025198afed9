"""The forward pass of the HiPPO network in chunks: a product of all rows and a kernel a chunk."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqmem.data.masks import masked
from seqmem.ops.gpu.memory_chunks_layout import Network
from seqmem.ops.gpu.memory_chunks_transitions import Transition, multiply


class Result(NamedTuple):
    """Results of a forward pass.

    Attributes:
        outputs: (B, T, H) or (B, T, H + M N).
        hidden: after each row's last valid step, (B, H).
        memory: after each row's last valid step, (B, M, N).
        gates: candidate and gate, (chunks, B, C, R), or nothing.
        memory_inputs: u, zero in the padding, (B, T, M).
        starts: memory before each chunk and after the last, (chunks + 1, B, M, N), or nothing.
    """

    outputs: Tensor
    hidden: Tensor
    memory: Tensor
    gates: Tensor
    memory_inputs: Tensor
    starts: Tensor


def forward(
    transition: Transition,
    inputs: Tensor,
    hidden: Tensor,
    memory: Tensor,
    weights: dict[str, Tensor | None],
    memory_output: bool,
    save: bool,
) -> Result:
    """Compute a whole sequence.

    Args:
        transition: the memory's transition.
        inputs: x, zero in the padding, (B, T, X).
        hidden: (B, H) before the first step.
        memory: (B, M, N) before the first step.
        weights: ``weight_ux``, ``bias_u``, ``weight_hx`` and ``bias_h``, or None.
        memory_output: output the memory too.
        save: keep what backward needs.
    """
    net, kernels = transition.net, transition.kernels
    width = net.hidden + (net.memories * net.order if memory_output else 0)
    new = inputs.new_empty if net.lengths is None else inputs.new_zeros
    outputs = new(net.batch, net.steps, width)
    u = masked(_input_terms(inputs, weights, net), net.lengths).contiguous()
    keep = save or memory_output
    starts = inputs.new_empty(net.chunks + 1 if keep else 2, *memory.shape)
    starts[0] = memory
    hidden = hidden.clone(memory_format=torch.contiguous_format)
    free, chunked = transition.free(starts), net.chunked(inputs)
    saved = inputs.new_empty(net.chunks if save else 0, net.batch, net.chunk, net.rows)
    transition.begin(starts[0], free)
    for group in net.groups(_bytes_of_chunk(net, inputs)):
        tables = transition.tables(group)
        gates = saved[group.start : group.stop] if save else inputs.new_empty(len(group), *saved.shape[1:])
        gate_terms(chunked[group.start : group.stop], weights, transition.half, gates)
        for k, index in enumerate(group):
            before, after = (starts[place % len(starts)] for place in (index, index + 1))
            product = transition.add_terms(index, before, free, gates[k])
            kernels.forward_chunk(net, index, tables[k], free, gates[k], product, before, after, hidden, outputs, u, save)
    final = transition.finish(starts[net.chunks % len(starts)], u).clone()
    if memory_output:
        _write_memories(transition, starts, u, outputs)
    kept = (saved, u, starts) if save else (inputs.new_empty(0),) * 3
    return Result(outputs, hidden, final, *kept)


def gate_terms(chunked: Tensor, weights: dict[str, Tensor | None], half: torch.dtype | None, out: Tensor) -> None:
    """Write the gates' terms in x, biases included: (G, B, C, X) to (G, B, C, R)."""
    weight, bias = weights["weight_hx"], weights["bias_h"]
    rows = out.view(-1, out.shape[-1])
    if weight is None or half is not None:
        rows.copy_(rows.new_zeros(()) if bias is None else bias)
    if weight is None:
        return
    factor = chunked.view(-1, chunked.shape[-1])
    if half is not None:
        rows.add_(multiply(factor.to(half), weight.T.to(half), rows.dtype))
    elif bias is None:
        torch.mm(factor, weight.T, out=rows)
    else:
        torch.addmm(bias, factor, weight.T, out=rows)


def _input_terms(inputs: Tensor, weights: dict[str, Tensor | None], net: Network) -> Tensor:
    """Return the terms of u in x, biases included, (B, T, M)."""
    terms = inputs.new_zeros(net.batch, net.steps, net.memories)
    weight, bias = weights["weight_ux"], weights["bias_u"]
    if weight is not None:
        terms = inputs @ weight.T
    return terms if bias is None else terms + bias


def _bytes_of_chunk(net: Network, like: Tensor) -> int:
    return max(net.pairs * net.memories, net.batch * net.chunk) * net.rows * like.element_size()


def _write_memories(transition: Transition, starts: Tensor, inputs: Tensor, outputs: Tensor) -> None:
    """Write the memory after each valid step into the last columns of the outputs."""
    net: Any = transition.net
    for group in net.groups(net.batch * net.chunk * net.memories * net.order * starts.element_size()):
        found = transition.memories(group, starts[group.start : group.stop], inputs).transpose(0, 1).flatten(1, 2).flatten(2)
        steps = slice(group.start * net.chunk, min(group.stop * net.chunk, net.steps))
        found = found[:, : steps.stop - steps.start]
        if net.lengths is not None:
            valid = torch.arange(steps.start, steps.stop, device=found.device) < net.lengths[:, None]
            found = torch.where(valid[..., None], found, 0)
        outputs[:, steps, net.hidden :] = found
