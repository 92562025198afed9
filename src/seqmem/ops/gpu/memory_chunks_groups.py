"""The chunks of a group, a sequence of its own: what a CUDA graph may capture."""

from torch import Tensor

from seqmem.ops.gpu.memory_chunks_plain import Tables, Terms
from seqmem.ops.gpu.memory_chunks_transitions import Transition


def forward_group(
    transition: Transition,
    tables: Tables,
    save: bool,
    *,
    memory: Tensor,
    starts: Tensor,
    hidden: Tensor,
    outputs: Tensor,
    inputs: Tensor,
    gates: Tensor | None = None,
    x: Tensor | None = None,
    weight_x: Tensor | None = None,
    bias_x: Tensor | None = None,
) -> None:
    """Compute a group of chunks.

    Args:
        transition: of the group.
        tables: of its chunks.
        save: overwrite ``gates`` with candidate and gate.
        memory: before the group, (B, M, N).
        starts: overwritten with the memory before each chunk and after the last, (G + 1, B, M, N).
        hidden: before the group, (B, H), overwritten with that after it.
        outputs: overwritten with the hidden states, zero in the padding, (B, T, H).
        inputs: terms of u in x, (B, T, M), overwritten with u at valid steps.
        gates: the gates' terms in x, (G, B, C, R), ignored with ``x``.
        x: (G, B, C, X); None if ``gates`` contains the terms in x.
        weight_x: W_hx, transposed, (X, R).
        bias_x: b_h, (R,), or None.
    """
    net, free = transition.net, transition.free(starts)
    starts[0] = memory
    if net.lengths is not None:
        outputs.zero_()
    transition.begin(starts[0], free)
    for index in range(net.chunks):
        before, after = starts[index], starts[index + 1]
        of_chunk = None if gates is None else gates[index]
        terms = None if x is None or weight_x is None else Terms(x[index], weight_x, bias_x)
        product = transition.add_terms(index, before, free, of_chunk if terms is None else None)
        transition.kernels.forward_chunk(
            net, index, tables.of_chunk(index), free, of_chunk, product, terms, before, after, hidden, outputs, inputs, save
        )


def backward_group(
    transition: Transition,
    tables: Tables,
    grad_outputs: Tensor | None,
    grad_memories: Tensor | None,
    *,
    gates: Tensor,
    outputs: Tensor,
    first_hidden: Tensor,
    inputs: Tensor,
    carry: Tensor,
    grad_memory: Tensor,
    grad_inputs: Tensor,
    grad_gates: Tensor,
) -> None:
    """Compute the gradients of a group of chunks.

    Args:
        transition: of the group.
        tables: of its chunks.
        grad_outputs: gradients of the hidden states, (B, T, H), with the strides of ``outputs``; or None.
        grad_memories: gradients of the memories that were outputs, (G, B, C, M, N), or None.
        gates: candidate and gate, (G, B, C, R).
        outputs: hidden states, (B, T, H).
        first_hidden: hidden state before the group, (B, H).
        inputs: u, (B, T, M).
        carry: gradient of the hidden state after the group, (B, H), overwritten with that before it.
        grad_memory: gradient of the memory after the group, (B, M, N), overwritten with that before it.
        grad_inputs: direct part of du, (B, T, M), overwritten with the gradient of u before its activation.
        grad_gates: overwritten with the gradients of the gates' inputs, (G, B, C, R).
    """
    net, pulled = transition.net, None
    shared = outputs, first_hidden, inputs
    for index in reversed(range(net.chunks)):
        transition.kernels.backward_chunk(
            net, index, tables.of_chunk(index), gates[index], *shared, grad_outputs, carry, grad_memory, grad_inputs,
            grad_gates[index], pulled,
        )  # fmt: skip
        of_chunk = None if grad_memories is None else grad_memories[index]
        pulled = transition.pull(index, grad_gates[index], of_chunk, grad_memory, grad_inputs)
    if pulled is not None:
        transition.kernels.backward_chunk(net, -1, None, None, *shared, None, carry, grad_memory, grad_inputs, None, pulled)
