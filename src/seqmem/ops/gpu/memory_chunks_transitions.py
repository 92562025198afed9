"""Three ways of a chunk's linear part: generators and step sizes, powers of one matrix, one matrix for each step."""

from abc import ABC, abstractmethod
from copy import copy
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor

from seqmem.ops.gpu.memory_chunks_constants import Powers, Sizes
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


class ByGenerators(Transition):
    """Steps of different sizes at O(N) each, in the kernels."""

    def __init__(self, net: Network, kernels: Any, weight_hm: Tensor | None, half: torch.dtype | None, sizes: Sizes):
        super().__init__(replace(net, evolution=sizes.evolution()), kernels, weight_hm, half)
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
        return free + _forced(self.net, impulses, inputs)

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


class ByPowers(Transition):
    """The same matrix at each step: its powers, multiplied with W_hm once a call, make a chunk one product of B rows.

    Attributes:
        ends: in backward the number of complete chunks of each row, (B,), or one number for all.
        entering: gradient of the memory after these chunks from the final memory, (B, M, N).
    """

    ends: Tensor | int | None = None
    entering: Tensor
    _tables: Tables | None = None

    def __init__(self, net: Network, kernels: Any, weight_hm: Tensor | None, half: torch.dtype | None, powers: Powers):
        super().__init__(replace(net, stationary=True), kernels, weight_hm, half)
        self._powers = powers
        self._stacked, self._end = powers.stacked, powers.stacked[:, -net.order :]
        self._folded = None if weight_hm is None else self._fold(weight_hm)
        self._feedback = None if net.weight_um is None else self._fold_feedback(net.weight_um)

    def _fold(self, weight: Tensor) -> Tensor:
        """Return W_hm A^j for j = 1..C, transposed: (M N, C R)."""
        net = self.net
        rows = weight.view(net.rows, net.memories, net.order).transpose(0, 1).reshape(-1, net.order)
        folded = self._stacked.view(-1, net.order) @ rows.T
        folded = folded.view(net.order, net.chunk, net.memories, net.rows).permute(2, 0, 1, 3)
        return folded.reshape(net.memories * net.order, -1).to(self.half or weight.dtype)

    def _fold_feedback(self, weight: Tensor) -> Tensor:
        """Return W_um A^j for j = 0..C-1, transposed: (M, N, C)."""
        net = self.net
        powers = self._stacked.view(net.order, net.chunk, net.order)
        later = torch.einsum("njm,km->knj", powers[:, :-1], weight)
        return torch.cat([weight[..., None], later], 2)

    def impulses(self, group: range) -> Tensor:
        """Return the impulses, (1, C, N)."""
        return self._powers.impulses[None]

    def begin(self, memory: Tensor, free: Free) -> None:
        """Copy the memory in half precision."""
        if free.half is not None:
            free.half.copy_(memory)

    def add_terms(self, index: int, memory: Tensor, free: Free, gates: Tensor | None) -> Tensor | None:
        """Compute the memory after a chunk without inputs, and add the gates' terms in F."""
        net = self.net
        torch.mm(memory.view(-1, net.order), self._end, out=free.memory.view(-1, net.order))
        if free.inputs is not None and self._feedback is not None:
            free.inputs.copy_(torch.einsum("bkn,knj->bjk", memory, self._feedback))
        if self._folded is None:
            return None
        factor = memory if free.half is None else free.half
        return self._added(factor.view(net.batch, -1), self._folded, memory.dtype, gates)

    def memories(self, starts: Tensor, inputs: Tensor, impulses: Tensor) -> Tensor:
        """Return the memory after each step, (G, B, C, M, N)."""
        net = self.net
        free = (starts.reshape(-1, net.order) @ self._stacked).view(*starts.shape[:3], net.chunk, net.order)
        return free.transpose(2, 3) + _forced(net, impulses, inputs)

    def finish(self, memory: Tensor, inputs: Tensor) -> Tensor:
        """Return the memory after each row's last valid step: rows stand at the start of their last, incomplete chunk."""
        net = self.net
        index, rest = self._ends(memory)
        free = (memory.reshape(-1, net.order) @ self._stacked).view(*memory.shape[:2], net.chunk, net.order)
        rows, offset = torch.arange(net.batch, device=memory.device), (rest - 1).clamp(min=0)
        steps = index[:, None] * net.chunk + torch.arange(net.chunk, device=memory.device)
        u = inputs[rows[:, None], steps.clamp(max=net.steps - 1)]
        u = torch.where((steps < (index * net.chunk + rest)[:, None])[..., None], u, 0)
        impulses = squared(self._powers.impulses, net.chunk, True)
        reached = free[rows, :, offset] + torch.einsum("bin,bik->bkn", impulses[offset], u)
        return torch.where((rest > 0)[:, None, None], reached, memory)

    def tables(self, group: range) -> Tables:
        """Return the tables that all chunks share."""
        if self._tables is None:
            self._tables = super().tables(group)
        return self._tables

    def part(self, group: range) -> Self:
        """Return the transition of a group of chunks as a sequence of its own."""
        found = super().part(group)
        if isinstance(found.ends, Tensor):
            found.ends = found.ends - group.start
        elif found.ends is not None:
            found.ends -= group.start
        return found

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that the chunks of a group need, by name."""
        found = {"stacked": self._stacked, "end": self._end, "folded": self._folded, "feedback": self._feedback}
        if isinstance(self.ends, Tensor):
            found |= {"ends": self.ends, "entering": self.entering}
        return super().tensors() | {name: tensor for name, tensor in found.items() if tensor is not None}

    def with_tensors(self, given: dict[str, Tensor]) -> Self:
        """Return the same transition with other tensors in place of those of :meth:`tensors`."""
        found = super().with_tensors(given)
        found._stacked, found._end = given["stacked"], given["end"]
        found._folded, found._feedback = given.get("folded"), given.get("feedback")
        if "ends" in given:
            found.ends, found.entering = given["ends"], given["entering"]
        return found

    def begin_backward(self, grad_memory: Tensor, grad_inputs: Tensor) -> Tensor:
        """Return the gradient of the memory after the last chunk; rows that end before get theirs in :meth:`pull`."""
        net = self.net
        index, rest = self._ends(grad_memory)
        rows, offset = torch.arange(net.batch, device=grad_memory.device), (rest - 1).clamp(min=0)
        powers = self._stacked.view(net.order, net.chunk, net.order).permute(1, 2, 0)  # (C, N, N): A^j
        pulled = torch.matmul(grad_memory.transpose(0, 1)[:, None], powers)  # (M, C, B, N)
        self.entering = torch.where((rest > 0)[:, None, None], pulled[:, offset, rows].transpose(0, 1), grad_memory)
        impulses = squared(self._powers.impulses, net.chunk, True)
        steps = index[:, None] * net.chunk + torch.arange(net.chunk, device=grad_memory.device)
        last = steps < (index * net.chunk + rest)[:, None]
        direct = torch.einsum("bin,bkn->bik", impulses[offset], grad_memory)
        at = (rows[:, None], steps.clamp(max=net.steps - 1))
        grad_inputs.index_put_(at, torch.where(last[..., None], direct, 0), accumulate=True)
        self.ends = index if net.lengths is not None else net.steps // net.chunk
        return torch.where((index == net.chunks)[:, None, None], self.entering, 0)

    def pull(
        self, index: int, grad_gates: Tensor, grad_memories: Tensor | None, grad_memory: Tensor, grad_inputs: Tensor
    ) -> None:
        """Overwrite ``grad_memory`` with the gradient of the memory before the chunk."""
        net = self.net
        before = grad_memory.view(-1, net.order) @ self._end.T
        if self._folded is not None:
            rows, folded = grad_gates.view(net.batch, -1), self._folded.T
            if self.half is None:
                before.view(net.batch, -1).addmm_(rows, folded)
            else:
                before += multiply(rows, folded, before.dtype).view_as(before)
        if grad_memories is not None:
            before += grad_memories.transpose(1, 2).reshape(-1, net.chunk * net.order) @ self._stacked.T
        before = before.view_as(grad_memory)
        if self._feedback is not None:
            given = grad_inputs[:, net.span(range(index, index + 1))]
            before += torch.einsum("bjk,knj->bkn", given, self._feedback[..., : net.count(index)])
        if isinstance(self.ends, Tensor):
            before += torch.where((self.ends == index)[:, None, None], self.entering, 0)
        elif self.ends == index:
            before += self.entering
        grad_memory.copy_(before)

    def _ends(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the chunk in which each row ends, (B,), and its valid steps there, 0 to C - 1."""
        net = self.net
        lengths = net.lengths
        if lengths is None:
            lengths = torch.full((net.batch,), net.steps, dtype=torch.int64, device=like.device)
        return lengths // net.chunk, lengths % net.chunk


def _forced(net: Network, impulses: Tensor, inputs: Tensor) -> Tensor:
    """Return the part of the memories that the inputs u of the same chunk have caused, (G, B, C, M, N)."""
    square = squared(impulses, net.chunk, net.stationary).expand(net.chunks, -1, -1, -1)
    return torch.einsum("gjin,gbik->gbjkn", square, net.chunked(inputs))
