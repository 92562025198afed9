"""Sizes and shared arguments of the HiPPO network in chunks.

The hidden state acts on the memory through the M inputs u alone, and the memory is linear in them. Within a chunk of C steps
that begins with memory m_s, the memory after step j is

    m_j = F_j + sum_{i <= j} G_ji u_i,   F_j = A_j ... A_0 m_s (free evolution),   G_ji = A_j ... A_{i+1} B_i (impulses),

and the gates' inputs are W_hx x_j + W_hm F_j, one product for all rows and steps, plus sum_i K_ji u_i with K_ji = W_hm G_ji.
Only the recurrence of h and u is sequential. Shapes: batch B, steps T, memories M, order N, hidden units H, rows of the gates
R (2H with a gate, else H). Pairs (j, i) are at j (j + 1) / 2 + i; if A is the same at each step, at the distance j - i.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from seqmem.ops.activations import Activation

MAX_CHUNK = 8
"""Steps of a chunk with one memory: the table K has C (C + 1) / 2 rows, and its loads bound the sequential part."""

GROUP_BYTES = 2**27
"""Upper limit of the largest buffer that holds a group of chunks, if one chunk is not larger."""

MAX_CHANNELS = 4
"""Channels of x up to which the kernels compute the gates' terms in x: a product would write and read all gates once more."""


def chunk_size(memories: int, steps: int) -> int:
    """Return C, a power of 2: at most 8 inputs u in a chunk."""
    size = MAX_CHUNK
    while size > 1 and (size * memories > MAX_CHUNK or size >= 2 * steps):
        size //= 2
    return size


@dataclass(frozen=True)
class Evolution:
    """The transition of each step by generators, O(N) a step; padded to whole chunks with steps of size 0.

    Attributes:
        generators: p, q, d, g, h, B, (6, N).
        sizes: step size (0 where the memory starts), its implicit part, and 1 where the memory starts, (T', 3).
        elimination: a, s, 1 / D of csrc/quasiseparable.h, (T', 3, N); None if A is lower triangular.
    """

    generators: Tensor
    sizes: Tensor
    elimination: Tensor | None


@dataclass(frozen=True)
class Network:
    """Arguments of a call that all chunks share.

    Attributes:
        batch: B.
        steps: T.
        memories: M.
        order: N.
        hidden: H.
        gated: the hidden state has a gate.
        memory_activation: activation of u.
        hidden_activation: activation of the candidate.
        lengths: (B,) int64, or None.
        weight_uh: (M, H), or None.
        weight_um: (M, N), or None.
        chunk: C.
        stationary: A is the same at each step.
        evolution: the transition by generators, which the kernels compute; None if products do.
    """

    batch: int
    steps: int
    memories: int
    order: int
    hidden: int
    gated: bool
    memory_activation: Activation
    hidden_activation: Activation
    lengths: Tensor | None
    weight_uh: Tensor | None
    weight_um: Tensor | None
    chunk: int
    stationary: bool = False
    evolution: Evolution | None = None

    @property
    def rows(self) -> int:
        """R."""
        return 2 * self.hidden if self.gated else self.hidden

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.steps // self.chunk)

    @cached_property
    def pairs(self) -> int:
        """Number of entries of a chunk's table."""
        return self.chunk if self.stationary else self.chunk * (self.chunk + 1) // 2

    def part(self, group: range) -> "Network":
        """Return the arguments of a group of chunks as a sequence of its own."""
        size, evolution = self.chunk, self.evolution
        start, steps = group.start * size, min(group.stop * size, self.steps) - group.start * size
        if evolution is not None:
            span = slice(start, group.stop * size)
            eliminated = evolution.elimination
            eliminated = None if eliminated is None else eliminated[span]
            evolution = replace(evolution, sizes=evolution.sizes[span], elimination=eliminated)
        lengths = None if self.lengths is None else self.lengths - start
        return replace(self, steps=steps, lengths=lengths, evolution=evolution)

    def count(self, index: int) -> int:
        """Return the steps of a chunk; 0 behind the last one."""
        return max(0, min(self.chunk, self.steps - index * self.chunk))

    def span(self, group: range) -> slice:
        """Return the steps of consecutive chunks as a slice."""
        return slice(group.start * self.chunk, min(group.stop * self.chunk, self.steps))

    def valid(self, index: int) -> Tensor | int:
        """Return the valid steps of each row in a chunk, (B,), or one number for all rows."""
        if self.lengths is None:
            return self.count(index)
        return (self.lengths - index * self.chunk).clamp(0, self.count(index))

    def groups(self, bytes_of_chunk: int) -> list[range]:
        """Return the chunks in groups of a power of 2 chunks and of at most :data:`GROUP_BYTES`, the larger groups first."""
        size = 1 << (max(1, GROUP_BYTES // max(1, bytes_of_chunk)).bit_length() - 1)
        found, first = [], 0
        while first < self.chunks:
            while size > self.chunks - first:
                size //= 2
            found.append(range(first, first + size))
            first += size
        return found

    def chunked(self, values: Tensor) -> Tensor:
        """Return (B, T, ...) as (chunks, B, C, ...), with zeros behind the last step."""
        missing = self.chunks * self.chunk - self.steps
        if missing:
            values = torch.cat([values, values.new_zeros(values.shape[0], missing, *values.shape[2:])], 1)
        return values.unflatten(1, (self.chunks, self.chunk)).transpose(0, 1).contiguous()


def pair_places(chunk: int, stationary: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the place of each pair (j, i) in a table, (C, C), 0 for i > j; and whether i <= j, (C, C)."""
    j, i = torch.arange(chunk, device=device)[:, None], torch.arange(chunk, device=device)
    lower = i <= j
    return torch.where(lower, j - i if stationary else j * (j + 1) // 2 + i, 0), lower


def squared(table: Tensor, chunk: int, stationary: bool) -> Tensor:
    """Return a table (..., pairs, X) as (..., C, C, X), with zeros for i > j."""
    places, lower = pair_places(chunk, stationary, table.device)
    square = table.index_select(-2, places.flatten()).unflatten(-2, (chunk, chunk))
    return torch.where(lower[..., None], square, 0)
