"""The linear part of a chunk: the free evolution of the memory, its products with the weights, and their transposes."""

from abc import ABC, abstractmethod
from copy import copy
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor

from seqmem.ops.gpu.memory_chunks_layout import Evolution, Network, squared
from seqmem.ops.gpu.memory_chunks_plain import Free, Tables


def multiply(left: Tensor, right: Tensor, dtype: torch.dtype, out: Tensor | None = None) -> Tensor:
    """Return a product of matrices in ``dtype``; factors in half precision are multiplied with sums in float32."""
    if left.dtype == dtype:
        return torch.mm(left, right, out=out)
    if left.is_cuda:
        if out is None:
            return torch.ops.aten.mm.dtype(left, right, dtype)
        return torch.ops.aten.mm.dtype_out(left, right, dtype, out=out)
    return torch.mm(left.to(dtype), right.to(dtype), out=out)


class Transition(ABC):
    """The free evolution of the memory, its products with the weights, and their transposes.

    Attributes:
        capturable: a CUDA graph may capture the chunks of a group.

    Args:
        net: shared arguments.
        kernels: the module of the kernels, plain or Triton.
        weight_hm: (R, M N), or None.
        half: type of the factors of products, None for that of the weights.
    """

    capturable = True

    def __init__(self, net: Network, kernels: Any, weight_hm: Tensor | None, half: torch.dtype | None):
        self.net, self.kernels, self.weight, self.half = net, kernels, weight_hm, half
        self._first = 0  # the chunk of the sequence that chunk 0 of a group is
        self.factor = weight_hm if weight_hm is None or half is None else weight_hm.to(half)

    def part(self, group: range) -> Self:
        """Return the transition of a group of chunks as a sequence of its own."""
        found = copy(self)
        found.net, found._first = self.net.part(group), self._first + group.start
        return found

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that the chunks of a group need, by name."""
        net, evolution = self.net, self.net.evolution
        found = {"factor": self.factor, "uh": net.weight_uh, "um": net.weight_um, "lengths": net.lengths}
        if evolution is not None:
            found |= {"generators": evolution.generators, "sizes": evolution.sizes, "elimination": evolution.elimination}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def with_tensors(self, given: dict[str, Tensor]) -> Self:
        """Return the same transition with other tensors in place of those of :meth:`tensors`."""
        found, evolution = copy(self), self.net.evolution
        if evolution is not None:
            evolution = Evolution(given["generators"], given["sizes"], given.get("elimination"))
        found.factor = given.get("factor")
        uh, um, lengths = (given.get(name) for name in ("uh", "um", "lengths"))
        found.net = replace(self.net, weight_uh=uh, weight_um=um, lengths=lengths, evolution=evolution)
        return found

    @abstractmethod
    def impulses(self, group: range) -> Tensor:
        """Return the impulses of a group of chunks, (G, P, N); (1, P, N) if all chunks share them."""

    @abstractmethod
    def begin(self, memory: Tensor, free: Free) -> None:
        """Prepare chunk 0, from the memory before it (B, M, N)."""

    @abstractmethod
    def add_terms(self, index: int, memory: Tensor, free: Free, gates: Tensor | None) -> Tensor | None:
        """Compute the gates' terms in F.

        Args:
            index: of the chunk.
            memory: before it, (B, M, N).
            free: buffers of the free evolution.
            gates: (B, C, R), to which they may be added; or None.

        Returns:
            The terms, (B, C, R); None if they were added or there are none.
        """

    @abstractmethod
    def memories(self, starts: Tensor, inputs: Tensor, impulses: Tensor) -> Tensor:
        """Return the memory after each step.

        Args:
            starts: memory before each of the G chunks, (G, B, M, N).
            inputs: u, (B, T, M).
            impulses: of the chunks, as :meth:`impulses` returns them.

        Returns:
            (G, B, C, M, N).
        """

    @abstractmethod
    def pull(
        self, index: int, grad_gates: Tensor, grad_memories: Tensor | None, grad_memory: Tensor, grad_inputs: Tensor
    ) -> Tensor | None:
        """Compute the transpose of :meth:`add_terms` and of the free evolution of a chunk.

        Args:
            index: of the chunk.
            grad_gates: (B, C, R).
            grad_memories: gradients of the memories that were outputs, (B, C, M, N), or None.
            grad_memory: gradient of the memory after the chunk, (B, M, N), overwritten with that before it.
            grad_inputs: gradient of u before its activation, (B, T, M).

        Returns:
            None, or what the kernel of the chunk before pulls through the generators, in place of writing ``grad_memory``.
        """

    def finish(self, memory: Tensor, inputs: Tensor) -> Tensor:
        """Return the memory after each row's last valid step, from that after the last chunk."""
        return memory

    def begin_backward(self, grad_memory: Tensor, grad_inputs: Tensor) -> Tensor:
        """Return the gradient of the memory after the last chunk, from that of :meth:`finish`."""
        return grad_memory

    def free(self, like: Tensor) -> Free:
        """Return the buffers of the free evolution, in the type and on the device of a tensor."""
        net = self.net
        shape = (net.batch, net.memories, net.order) if net.stationary else (net.batch, net.chunk, net.memories, net.order)
        memory = like.new_empty(shape)
        half = None if self.half is None or self.weight is None else like.new_empty(shape, dtype=self.half)
        inputs = None if net.weight_um is None else like.new_empty(net.batch, net.chunk, net.memories)
        return Free(memory, half, inputs)

    def tables(self, group: range) -> Tables:
        """Return the tables of a group of chunks."""
        net, found = self.net, self.impulses(group)
        gates, feedback = None, None
        if self.weight is not None:
            rows = self.weight.view(net.rows, net.memories, net.order).transpose(0, 1).reshape(-1, net.order)
            gates = (found.flatten(0, 1) @ rows.T).view(*found.shape[:2], net.memories, net.rows)
            gates = gates if self.half is None else gates.to(self.half)
        if net.weight_um is not None:
            feedback = found @ net.weight_um.T
        return Tables(found, gates, feedback)

    def _multiply_free(self, free: Free, gates: Tensor | None) -> Tensor | None:
        """Compute W_hm F for F in ``free``, as :meth:`add_terms`."""
        if self.factor is None:
            return None
        factor = (free.memory if free.half is None else free.half).view(-1, self.factor.shape[1])
        return self._added(factor, self.factor.T, free.memory.dtype, gates)

    def _added(self, left: Tensor, right: Tensor, dtype: torch.dtype, gates: Tensor | None) -> Tensor | None:
        """Add a product to ``gates``, or return it as (B, C, R)."""
        net = self.net
        if gates is not None and self.half is None:
            gates.view(len(left), -1).addmm_(left, right)
            return None
        return multiply(left, right, dtype).view(net.batch, net.chunk, net.rows)

    def _pulled(self, grad_gates: Tensor, grad_memories: Tensor | None, like: Tensor) -> Tensor:
        net = self.net
        shape = (net.batch, net.chunk, net.memories, net.order)
        if self.factor is None:
            return like.new_zeros(shape) if grad_memories is None else grad_memories
        pulled = multiply(grad_gates.view(-1, net.rows), self.factor, like.dtype).view(shape)
        return pulled if grad_memories is None else pulled + grad_memories


def forced_memories(net: Network, impulses: Tensor, inputs: Tensor) -> Tensor:
    """Return the part of the memories that the inputs u of the same chunk have caused, (G, B, C, M, N)."""
    square = squared(impulses, net.chunk, net.stationary).expand(net.chunks, -1, -1, -1)
    return torch.einsum("gjin,gbik->gbjkn", square, net.chunked(inputs))
