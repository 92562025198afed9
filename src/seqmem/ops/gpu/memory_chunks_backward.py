"""The backward pass of the HiPPO network in chunks; the memories are computed again, a group of chunks at a time."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from seqmem.data.masks import masked
from seqmem.ops.gpu.memory_chunks_forward import Result
from seqmem.ops.gpu.memory_chunks_layout import Network, squared
from seqmem.ops.gpu.memory_chunks_plain import Tables
from seqmem.ops.gpu.memory_chunks_transitions import Transition, multiply

Weights = dict[str, Tensor | None]


class Gradients:
    """Sums of the weights' gradients over the steps.

    Args:
        net: shared arguments.
        weights: all weights by name; None for those that are switched off.
        half: type of the factors of products, or None.
    """

    def __init__(self, net: Network, weights: Weights, half: torch.dtype | None):
        self._net, self._half, self._weights = net, half, weights
        self.sums: Weights = {name: None if weight is None else torch.zeros_like(weight) for name, weight in weights.items()}

    def add_group(self, grad_gates: Tensor, chunked: Tensor, memories: Tensor | None) -> None:
        """Add what a group of chunks contributes to the gradients of W_hx, W_hm and b_h.

        Args:
            grad_gates: gradients of the gates' inputs, (G, B, C, R).
            chunked: x, (G, B, C, X).
            memories: after each step, (G, B, C, M, N); None without W_hm.
        """
        rows = grad_gates.view(-1, self._net.rows)
        for name, factor in (("weight_hx", chunked), ("weight_hm", memories)):
            total = self.sums[name]
            if total is not None and factor is not None:
                factor = factor.reshape(len(rows), -1)
                total += multiply(rows.T, factor.to(rows.dtype), total.dtype)
        bias = self.sums["bias_h"]
        if bias is not None:
            bias += rows.sum(0, dtype=bias.dtype)

    def add_feedback(self, grad_inputs: Tensor, memories: Tensor, starts: Tensor) -> None:
        """Add what a group of chunks contributes to the gradient of W_um.

        Args:
            grad_inputs: gradients of u before its activation, (G, B, C, M).
            memories: after each step, (G, B, C, M, N).
            starts: before each chunk, (G, B, M, N).
        """
        total = self.sums["weight_um"]
        if total is not None:
            total += torch.einsum("gbjk,gbjkn->kn", grad_inputs[:, :, 1:], memories[:, :, :-1])
            total += torch.einsum("gbk,gbkn->kn", grad_inputs[:, :, 0], starts)

    def add_inputs(self, grad_inputs: Tensor, inputs: Tensor, first_hidden: Tensor, outputs: Tensor) -> None:
        """Add the gradients of W_ux, W_uh and b_u: gradients of u before its activation (B, T, M), x (B, T, X)."""
        rows = grad_inputs.reshape(-1, self._net.memories)
        if (total := self.sums["weight_ux"]) is not None:
            total += rows.T @ inputs.reshape(len(rows), -1)
        if (total := self.sums["weight_uh"]) is not None:
            later = pad(grad_inputs[:, 1:], (0, 0, 0, 1)).reshape(len(rows), -1)
            total += later.T @ outputs.view(len(rows), -1)[:, : self._net.hidden]
            total += grad_inputs[:, 0].T @ first_hidden
        if (total := self.sums["bias_u"]) is not None:
            total += rows.sum(0)


def backward(
    transition: Transition,
    inputs: Tensor,
    first_hidden: Tensor,
    weights: Weights,
    result: Result,
    grads: tuple[Tensor | None, Tensor | None, Tensor | None],
    input_gradient: bool,
) -> tuple[Tensor | None, Tensor, Tensor, Weights]:
    """Compute all gradients.

    Args:
        transition: the memory's transition.
        inputs: x, zero in the padding, (B, T, X).
        first_hidden: (B, H) before the first step.
        weights: all weights by name.
        result: results of the forward pass.
        grads: gradients of the outputs, of the last hidden state and of the last memory; None for zeros.
        input_gradient: compute the gradient of the inputs.

    Returns:
        Gradients of the inputs (None if not needed), the hidden state, the memory, and the weights.
    """
    net, kernels = transition.net, transition.kernels
    grad_outputs, grad_hidden, grad_memory = grads
    grad_outputs = None if grad_outputs is None else grad_outputs.contiguous()
    carry = torch.zeros_like(first_hidden) if grad_hidden is None else grad_hidden.clone()
    carry = carry.contiguous()
    like = result.starts[0]
    du = torch.zeros_like(result.memory_inputs)
    given = torch.zeros_like(like) if grad_memory is None else grad_memory.clone()
    grad_memory = transition.begin_backward(given.contiguous(), du).contiguous()
    of_memories = _MemoryOutputs(net, grad_outputs)
    sums = Gradients(net, weights, transition.half)
    chunked = net.chunked(inputs)
    grad_chunked = torch.empty_like(chunked) if input_gradient else None
    groups = net.groups(net.batch * net.chunk * (net.rows + net.memories * net.order) * like.element_size())
    pulled = None
    for group in reversed(groups):
        span = slice(group.start, group.stop)
        tables = transition.tables(group)
        da = like.new_empty(len(group), net.batch, net.chunk, net.rows, dtype=transition.half or like.dtype)
        for k, index in reversed(list(enumerate(group))):
            of_chunk = of_memories.of_chunk(index, tables[k], du)
            kernels.backward_chunk(
                net, index, tables[k], result.gates[index], result.outputs, first_hidden, result.memory_inputs, grad_outputs,
                carry, grad_memory, du, da[k], pulled,
            )  # fmt: skip
            pulled = transition.pull(index, da[k], of_chunk, grad_memory, du)
        memories = None
        if weights["weight_hm"] is not None or net.weight_um is not None:
            memories = transition.memories(group, result.starts[span], result.memory_inputs)
            if net.weight_um is not None:
                sums.add_feedback(_of_group(net, du, group), memories, result.starts[span])
        sums.add_group(da, chunked[span], memories)
        if grad_chunked is not None:
            _input_gradients(da, weights["weight_hx"], transition.half, grad_chunked[span])
    if pulled is not None:
        kernels.backward_chunk(
            net, -1, None, None, result.outputs, first_hidden, result.memory_inputs, None, carry, grad_memory, du, None, pulled
        )
    sums.add_inputs(du, inputs, first_hidden, result.outputs)
    grad = None if grad_chunked is None else _whole(net, grad_chunked)
    if grad is not None and (weight := weights["weight_ux"]) is not None:
        grad = grad + du @ weight
    return grad, carry, grad_memory, sums.sums


class _MemoryOutputs:
    """Gradients of the memories that were outputs.

    Args:
        net: shared arguments.
        grad_outputs: (B, T, W), or None.
    """

    def __init__(self, net: Network, grad_outputs: Tensor | None):
        self._net, self._grads = net, None
        if grad_outputs is not None and grad_outputs.shape[-1] > net.hidden:
            self._grads = masked(grad_outputs[..., net.hidden :], net.lengths)

    def of_chunk(self, index: int, tables: Tables, grad_inputs: Tensor) -> Tensor | None:
        """Return those of a chunk, (B, C, M, N), and add what they contribute to the gradient of u (B, T, M)."""
        if self._grads is None:
            return None
        net, span = self._net, self._net.span(index)
        grads = pad(self._grads[:, span], (0, 0, 0, net.chunk - net.count(index)))
        grads = grads.view(net.batch, net.chunk, net.memories, net.order)
        square = squared(tables.impulses, net.chunk, net.stationary)
        grad_inputs[:, span] += torch.einsum("bjkn,jin->bik", grads, square)[:, : net.count(index)]
        return grads


def _of_group(net: Network, values: Tensor, group: range) -> Tensor:
    """Return (B, T, M) of a group of chunks as (G, B, C, M)."""
    part = values[:, group.start * net.chunk : group.stop * net.chunk]
    part = pad(part, (0, 0, 0, len(group) * net.chunk - part.shape[1]))
    return part.view(net.batch, len(group), net.chunk, -1).transpose(0, 1)


def _input_gradients(grad_gates: Tensor, weight: Tensor | None, half: torch.dtype | None, out: Tensor) -> None:
    """Write the gradients of x by the gates: (G, B, C, R) to (G, B, C, X)."""
    if weight is None:
        out.zero_()
        return
    factor = weight if half is None else weight.to(half)
    multiply(grad_gates.view(-1, grad_gates.shape[-1]), factor, out.dtype, out.view(-1, out.shape[-1]))


def _whole(net: Network, chunked: Tensor) -> Tensor:
    """Return (chunks, B, C, X) as (B, T, X)."""
    return chunked.transpose(0, 1).flatten(1, 2)[:, : net.steps]
