"""The transition of equal steps: the powers of one matrix."""

from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor

from seqmem.ops.gpu.memory_chunks_constants import Powers
from seqmem.ops.gpu.memory_chunks_layout import Network, squared
from seqmem.ops.gpu.memory_chunks_plain import Free, Tables
from seqmem.ops.gpu.memory_chunks_transitions import Transition, forced_memories, multiply


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
        return free.transpose(2, 3) + forced_memories(net, impulses, inputs)

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
