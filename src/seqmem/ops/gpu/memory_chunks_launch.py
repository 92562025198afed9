"""Launches of the Triton kernels, with the arguments of the functions of the same names in ``memory_chunks_plain.py``."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
from torch import Tensor

from seqmem.ops.gpu import memory_chunks_backward_kernel, memory_chunks_kernels
from seqmem.ops.gpu.memory_chunks_layout import Network
from seqmem.ops.gpu.memory_chunks_plain import Free, Tables, Terms


def eliminate(generators: Tensor, sizes: Tensor) -> Tensor:
    """Compute the elimination of each step."""
    order = generators.shape[1]
    block = triton.next_power_of_2(order)
    out = generators.new_empty(len(sizes), 3, order)
    with _device(generators):
        memory_chunks_kernels.eliminate[(len(sizes),)](generators, sizes, out, N=order, BLOCK_N=block, num_warps=warps(block))
    return out


def evolve(net: Network, memory: Tensor, first: int, out: Tensor, inputs: Tensor | None = None) -> None:
    """Compute the memory after each step of consecutive chunks."""
    _evolve(net, memory, first, out, inputs, None, None)


def begin_free(net: Network, index: int, free: Free, memory: Tensor) -> None:
    """Compute the free evolution of a chunk from the generators into ``free``, from the memory before it (B, M, N)."""
    _evolve(net, memory[None], index, free.memory[None], None, free.half, free.inputs)


def _evolve(
    net: Network, memory: Tensor, first: int, out: Tensor, inputs: Tensor | None, half: Tensor | None, fed: Tensor | None
) -> None:
    block = triton.next_power_of_2(net.order)
    programs = memory.shape[0] * net.batch * net.memories
    with _device(memory):
        memory_chunks_kernels.evolve[(programs,)](
            memory, out, half, fed, inputs, net.weight_um, *_evolution(net), first * net.chunk, net.batch,
            0 if inputs is None else inputs.shape[1], 0 if inputs is None else inputs.stride(0),
            N=net.order, M=net.memories, C=net.chunk, BLOCK_N=block, num_warps=warps(block),
        )  # fmt: skip


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
    """Compute the steps of a chunk, the memory after it, and the free evolution of the next chunk."""
    with _device(hidden):
        memory_chunks_kernels.forward_chunk[(net.batch,)](
            gates, product, *_terms(terms), tables.gates, tables.feedback, tables.impulses, free.memory, free.half, free.inputs,
            before, after, hidden, outputs, inputs, net.lengths, net.weight_uh, net.weight_um, *_evolution(net),
            *_counts(net, index), outputs.stride(0), outputs.stride(1), inputs.stride(0), SAVE=save,
            X=0 if terms is None else terms.inputs.shape[-1], **_constants(net),
        )  # fmt: skip


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
    """Compute the gradients through the memory of the next chunk by the generators, then those through a chunk's steps."""
    table = (None,) * 3 if tables is None else (tables.gates, tables.feedback, tables.impulses)
    with _device(carry):
        memory_chunks_backward_kernel.backward_chunk[(net.batch,)](
            gates, *table, outputs, first_hidden, inputs, grad_outputs, carry, grad_memory, grad_inputs, grad_gates, pulled,
            net.lengths, net.weight_uh, net.weight_um, *_evolution(net), *_counts(net, index), outputs.stride(0),
            outputs.stride(1), inputs.stride(0), **_constants(net),
        )  # fmt: skip


def _terms(terms: Terms | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    return (None, None, None) if terms is None else (terms.inputs, terms.weight, terms.bias)


def _counts(net: Network, index: int) -> tuple[int, int, int]:
    """Return the first step of a chunk, its steps, and those of the next one."""
    if index < 0:
        return 0, 0, net.count(0)
    return index * net.chunk, net.count(index), net.count(index + 1)


def _evolution(net: Network) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    if net.evolution is None:
        return None, None, None
    return net.evolution.generators, net.evolution.sizes, net.evolution.elimination


def _constants(net: Network) -> dict[str, Any]:
    blocks = triton.next_power_of_2(net.hidden), triton.next_power_of_2(net.order)
    return {
        "H": net.hidden,
        "N": net.order,
        "M": net.memories,
        "C": net.chunk,
        "GATED": net.gated,
        "STATIONARY": net.stationary,
        "ACTIVATION_U": net.memory_activation,
        "ACTIVATION_H": net.hidden_activation,
        "BLOCK_H": blocks[0],
        "BLOCK_N": blocks[1],
        "num_warps": warps(max(blocks)),
    }


def warps(block: int) -> int:
    """Return the warps of a program, for the larger of the blocks over hidden units and over coefficients."""
    return min(16, max(4, block // 128))


def _device(tensor: Tensor) -> AbstractContextManager[object]:
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
