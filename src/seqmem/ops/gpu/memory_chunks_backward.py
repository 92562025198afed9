"""The backward pass of the HiPPO network in chunks; the memories are computed again, a group of chunks at a time."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from seqmem.data.masks import masked
from seqmem.ops.gpu.memory_chunks_forward import Result
from seqmem.ops.gpu.memory_chunks_graphs import runner_for
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
    net = transition.net
    grad_outputs, grad_hidden, grad_memory = grads
    grad_outputs = None if grad_outputs is None else grad_outputs.contiguous()
    carry = (torch.zeros_like(first_hidden) if grad_hidden is None else grad_hidden.clone()).contiguous()
    like = result.starts[0]
    du = torch.zeros_like(result.memory_inputs)
    given = torch.zeros_like(like) if grad_memory is None else grad_memory.clone()
    grad_memory = transition.begin_backward(given.contiguous(), du).contiguous()
    sums, chunked = Gradients(net, weights, transition.half), net.chunked(inputs)
    grad_chunked = torch.empty_like(chunked) if input_gradient else None
    groups = net.groups(net.batch * net.chunk * (net.rows + net.memories * net.order) * like.element_size())
    with runner_for(transition, like, backward=True) as runner:
        for group in reversed(groups):
            steps, rows = net.span(group), slice(group.start, group.stop)
            part, tables = transition.part(group), transition.tables(group)
            da = like.new_empty(len(group), net.batch, net.chunk, net.rows, dtype=transition.half or like.dtype)
            earlier = first_hidden if group.start == 0 else result.outputs[:, steps.start - 1, : net.hidden].contiguous()
            of_group = {"gates": result.gates[rows], "outputs": result.outputs[:, steps, : net.hidden]}
            of_group |= {"first_hidden": earlier, "inputs": result.memory_inputs[:, steps], "carry": carry}
            of_group |= {"grad_memory": grad_memory, "grad_inputs": du[:, steps], "grad_gates": da}
            if grad_outputs is not None:
                of_group["grad_outputs"] = grad_outputs[:, steps, : net.hidden]
                _add_memory_gradients(part.net, tables, grad_outputs[:, steps], of_group)
            runner.backward(part, tables, of_group)
            _add_sums(sums, part, tables, result.starts[rows], chunked[rows], of_group)
            if grad_chunked is not None:
                _input_gradients(da, weights["weight_hx"], transition.half, grad_chunked[rows])
    sums.add_inputs(du, inputs, first_hidden, result.outputs)
    grad = None if grad_chunked is None else _whole(net, grad_chunked)
    if grad is not None and (weight := weights["weight_ux"]) is not None:
        grad = grad + du @ weight
    return grad, carry, grad_memory, sums.sums


def _add_memory_gradients(net: Network, tables: Tables, grad_outputs: Tensor, of_group: dict[str, Tensor]) -> None:
    """Add the gradients of the memories that were outputs, and what they contribute to the gradient of u, to a group's tensors.

    Args:
        net: arguments of the group.
        tables: of the group.
        grad_outputs: (B, T, W).
        of_group: tensors of the group by name.
    """
    if grad_outputs.shape[-1] == net.hidden:
        return
    valid = None if net.lengths is None else net.lengths.clamp(min=0)
    grads = net.chunked(masked(grad_outputs[..., net.hidden :], valid))
    grads = grads.view(*grads.shape[:3], net.memories, net.order)
    square = squared(tables.impulses, net.chunk, net.stationary).expand(len(grads), -1, -1, -1)
    of_group["grad_inputs"] += _whole(net, torch.einsum("gbjkn,gjin->gbik", grads, square))
    of_group["grad_memories"] = grads


def _add_sums(
    sums: Gradients, part: Transition, tables: Tables, starts: Tensor, chunked: Tensor, of_group: dict[str, Tensor]
) -> None:
    """Add what a group contributes to the gradients of the weights."""
    memories = None
    if part.weight is not None or part.net.weight_um is not None:
        memories = part.memories(starts, of_group["inputs"], tables.impulses)
        if part.net.weight_um is not None:
            sums.add_feedback(part.net.chunked(of_group["grad_inputs"]), memories, starts)
    sums.add_group(of_group["grad_gates"], chunked, memories)


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
