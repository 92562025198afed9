"""The forward pass of the HiPPO network in chunks: a product of all rows and a kernel a chunk."""

from typing import NamedTuple

import torch
from torch import Tensor

from seqmem.data.masks import masked
from seqmem.ops.gpu.memory_chunks_graphs import runner_for
from seqmem.ops.gpu.memory_chunks_layout import MAX_CHANNELS, Network
from seqmem.ops.gpu.memory_chunks_plain import Tables
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
    net = transition.net
    width = net.hidden + (net.memories * net.order if memory_output else 0)
    outputs = inputs.new_empty(net.batch, net.steps, width)
    u = masked(_input_terms(inputs, weights, net), net.lengths).contiguous()
    hidden = hidden.clone(memory_format=torch.contiguous_format)
    chunked = net.chunked(inputs)
    saved = inputs.new_empty(net.chunks if save else 0, net.batch, net.chunk, net.rows)
    all_starts = inputs.new_empty(net.chunks + 1 if save else 0, *memory.shape)
    with runner_for(transition, memory) as runner:
        for group in net.groups(_bytes_of_chunk(net, memory_output, inputs)):
            steps, rows = net.span(group), slice(group.start, group.stop)
            starts = all_starts[group.start : group.stop + 1] if save else inputs.new_empty(len(group) + 1, *memory.shape)
            part, tables = transition.part(group), transition.tables(group)
            of_group = _gate_terms(transition, chunked[rows], weights, saved[rows] if save else None)
            of_group |= {"memory": memory, "starts": starts, "hidden": hidden}
            of_group |= {"outputs": outputs[:, steps, : net.hidden], "inputs": u[:, steps]}
            runner.forward(part, tables, of_group, save)
            if memory_output:
                _write_memories(part, tables, starts[:-1], u[:, steps], outputs[:, steps])
            memory = starts[-1]
    final = transition.finish(memory, u).clone()
    kept = (saved, u, all_starts) if save else (inputs.new_empty(0),) * 3
    return Result(outputs, hidden, final, *kept)


def _gate_terms(
    transition: Transition, chunked: Tensor, weights: dict[str, Tensor | None], gates: Tensor | None
) -> dict[str, Tensor]:
    """Return a group's tensors for the gates' terms in x, biases included.

    Args:
        transition: of the sequence.
        chunked: x, (G, B, C, X).
        weights: all weights by name.
        gates: (G, B, C, R), where backward expects candidate and gate; None if it is not needed.
    """
    weight, bias = weights["weight_hx"], weights["bias_h"]
    if weight is not None and chunked.shape[-1] <= MAX_CHANNELS:
        found = {"x": chunked, "weight_x": weight.T.contiguous(), "bias_x": bias, "gates": gates}
        return {name: value for name, value in found.items() if value is not None}
    if gates is None:
        gates = chunked.new_empty(*chunked.shape[:3], transition.net.rows)
    rows, factor = gates.view(-1, gates.shape[-1]), chunked.view(-1, chunked.shape[-1])
    if weight is None:
        rows.copy_(rows.new_zeros(()) if bias is None else bias)
    elif transition.half is None and bias is not None:
        torch.addmm(bias, factor, weight.T, out=rows)
    else:
        half = transition.half or weight.dtype
        multiply(factor.to(half), weight.T.to(half), rows.dtype, rows)
        if bias is not None:
            rows += bias
    return {"gates": gates}


def _input_terms(inputs: Tensor, weights: dict[str, Tensor | None], net: Network) -> Tensor:
    """Return the terms of u in x, biases included, (B, T, M)."""
    terms = inputs.new_zeros(net.batch, net.steps, net.memories)
    weight, bias = weights["weight_ux"], weights["bias_u"]
    if weight is not None:
        terms = inputs @ weight.T
    return terms if bias is None else terms + bias


def _bytes_of_chunk(net: Network, memory_output: bool, like: Tensor) -> int:
    size = max(net.pairs * net.memories, net.batch * net.chunk) * net.rows
    if memory_output:
        size = max(size, net.batch * net.chunk * net.memories * net.order)
    return size * like.element_size()


def _write_memories(part: Transition, tables: Tables, starts: Tensor, inputs: Tensor, outputs: Tensor) -> None:
    """Write the memory after each valid step of a group into the last columns of its outputs."""
    net = part.net
    found = part.memories(starts, inputs, tables.impulses).transpose(0, 1).flatten(1, 2).flatten(2)
    outputs[:, :, net.hidden :] = masked(found[:, : net.steps], None if net.lengths is None else net.lengths.clamp(min=0))
