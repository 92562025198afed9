"""Transitions of steps of different sizes: from generators at O(N) a step, and from one matrix for each step."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from seqmem.ops.gpu.memory_chunks_constants import Sizes
from seqmem.ops.gpu.memory_chunks_layout import Network
from seqmem.ops.gpu.memory_chunks_plain import Free
from seqmem.ops.gpu.memory_chunks_transitions import Transition, forced_memories


class ByGenerators(Transition):
    """Steps of different sizes at O(N) each, in the kernels."""

    def __init__(self, net: Network, kernels: Any, weight_hm: Tensor | None, half: torch.dtype | None, sizes: Sizes):
        super().__init__(replace(net, evolution=sizes.evolution(kernels)), kernels, weight_hm, half)
        self._sizes = sizes

    def impulses(self, group: range) -> Tensor:
        """Return the impulses of a group of chunks, (G, P, N)."""
        return self._sizes.impulses(self.net, self.kernels, group)

    def begin(self, memory: Tensor, free: Free) -> None:
        """Compute the free evolution of chunk 0."""
        self.kernels.begin_free(self.net, 0, free, memory)

    def add_terms(self, index: int, memory: Tensor, free: Free, gates: Tensor | None) -> Tensor | None:
        """Add the gates' terms in F, which the kernel of the chunk before has computed."""
        return self._multiply_free(free, gates)

    def memories(self, starts: Tensor, inputs: Tensor, impulses: Tensor) -> Tensor:
        """Return the memory after each step, (G, B, C, M, N)."""
        net = self.net
        found = starts.new_empty(net.chunks, net.batch, net.chunk, net.memories, net.order)
        self.kernels.evolve(net, starts, 0, found, inputs)
        return found

    def pull(
        self, index: int, grad_gates: Tensor, grad_memories: Tensor | None, grad_memory: Tensor, grad_inputs: Tensor
    ) -> Tensor | None:
        """Return the gradients of the chunk's memories by its gates and outputs, (B, C, M, N)."""
        return self._pulled(grad_gates, grad_memories, grad_memory)


class Dense(Transition):
    """Steps of zero-order hold of different sizes: the product of a chunk's matrices up to each step."""

    capturable = False  # each chunk has matrices of its own

    def __init__(self, net: Network, kernels: Any, weight_hm: Tensor | None, half: torch.dtype | None, sizes: Sizes):
        super().__init__(net, kernels, weight_hm, half)
        self._sizes = sizes

    def impulses(self, group: range) -> Tensor:
        """Return the impulses of a group of chunks, (G, P, N)."""
        return torch.stack([self._sizes.dense(self._first + index)[1] for index in group])

    def begin(self, memory: Tensor, free: Free) -> None:
        """Do nothing: :meth:`add_terms` computes the free evolution."""

    def add_terms(self, index: int, memory: Tensor, free: Free, gates: Tensor | None) -> Tensor | None:
        """Compute the free evolution, and add the gates' terms in it."""
        free.memory.copy_(self._free(index, memory))
        if free.half is not None:
            free.half.copy_(free.memory)
        if free.inputs is not None and self.net.weight_um is not None:
            earlier = torch.cat([memory[:, None], free.memory[:, :-1]], 1)
            free.inputs.copy_((earlier * self.net.weight_um).sum(-1))
        return self._multiply_free(free, gates)

    def memories(self, starts: Tensor, inputs: Tensor, impulses: Tensor) -> Tensor:
        """Return the memory after each step, (G, B, C, M, N)."""
        free = torch.stack([self._free(index, memory) for index, memory in enumerate(starts)])
        return free + forced_memories(self.net, impulses, inputs)

    def pull(
        self, index: int, grad_gates: Tensor, grad_memories: Tensor | None, grad_memory: Tensor, grad_inputs: Tensor
    ) -> None:
        """Overwrite ``grad_memory`` with the gradient of the memory before the chunk."""
        net = self.net
        count, valid = net.count(index), torch.as_tensor(net.valid(index), device=grad_memory.device).expand(net.batch)
        pulled = self._pulled(grad_gates, grad_memories, grad_memory).clone()
        last = (torch.arange(net.chunk, device=valid.device) == valid[:, None] - 1)[..., None, None]
        pulled += torch.where(last, grad_memory[:, None], 0)
        first: Tensor | int = 0
        if net.weight_um is not None:
            fed = grad_inputs[:, net.span(range(index, index + 1)), :, None] * net.weight_um
            pulled[:, : count - 1] += fed[:, 1:]
            first = fed[:, 0]
        stacked = self._sizes.dense(self._first + index)[0]
        before = (pulled.transpose(1, 2).reshape(-1, stacked.shape[1]) @ stacked.T).view(grad_memory.shape) + first
        grad_memory.copy_(torch.where((valid > 0)[:, None, None], before, grad_memory))

    def _free(self, index: int, memory: Tensor) -> Tensor:
        """Return the free evolution of a chunk, (B, C, M, N)."""
        net = self.net
        found = memory.reshape(-1, net.order) @ self._sizes.dense(self._first + index)[0]
        return found.view(net.batch, net.memories, net.chunk, net.order).transpose(1, 2)
