"""Constants of the HiPPO network in chunks: transitions and impulses, which depend on neither data nor weights.

They are computed in float64, rounded once, and kept on the device as long as the CPU tensor lives that they follow from.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import cached_property
from itertools import count
from threading import RLock
from typing import Any, TypeVar
from weakref import finalize

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from seqmem.data.transfer import copied
from seqmem.ops.constants import nbytes
from seqmem.ops.exponential import halvings, scaled_exponential
from seqmem.ops.gpu.memory_chunks_layout import Evolution, Network

MAX_BYTES = 2**29
"""Upper limit of the impulses and matrices that are kept for later calls; if those of one sequence are larger, they are not."""

Value = TypeVar("Value")

_kept = WeakTensorKeyDictionary()
_numbers = count()


class _Store:
    """Tensors of the groups and chunks of sequences within :data:`MAX_BYTES`, the latest used ones last."""

    def __init__(self) -> None:
        self._values: OrderedDict[tuple[int, Hashable], tuple[Tensor, ...]] = OrderedDict()
        self._size = 0
        self._lock = RLock()  # the garbage collector may call `drop` within other methods

    def get(self, key: tuple[int, Hashable]) -> tuple[Tensor, ...] | None:
        """Return the tensors of a key, or None."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def add(self, key: tuple[int, Hashable], value: tuple[Tensor, ...], share: float) -> None:
        """Keep tensors that are a share of those of a sequence, unless all of these are too large."""
        if nbytes(value) > MAX_BYTES * share:
            return
        with self._lock:
            self._size += nbytes(value) - nbytes(self._values.pop(key, ()))
            self._values[key] = value
            while self._size > MAX_BYTES:
                self._size -= nbytes(self._values.popitem(last=False)[1])

    def drop(self, number: int) -> None:
        """Drop the tensors of a sequence."""
        with self._lock:
            for key in list(self._values):
                if key[0] == number:
                    self._size -= nbytes(self._values.pop(key, ()))


_store = _Store()


def kept(anchor: Tensor, key: Hashable, make: Callable[[], Value]) -> Value:
    """Return ``make()``, which is kept under a key as long as a tensor lives and is not changed in place."""
    values: dict[Any, Any] = _kept.setdefault(anchor, {})
    full = (key, anchor._version)
    if full not in values:
        values[full] = make()
    return values[full]


class Sizes:
    """Constants of steps of different sizes.

    Args:
        step_sizes: (T,) float64 on the CPU.
        generators: (6, N) float64 on the CPU.
        alpha: implicit part of a step; None for zero-order hold.
        chunk: C.
        like: tensor of the type and on the device of the results.
    """

    def __init__(self, step_sizes: Tensor, generators: Tensor, alpha: float | None, chunk: int, like: Tensor):
        missing = -len(step_sizes) % chunk
        self._host = torch.cat([step_sizes, step_sizes.new_zeros(missing)])
        self._host_generators = generators.clone()
        self._alpha, self._chunk = alpha, chunk
        self._device, self._dtype = like.device, like.dtype
        self._rounded: Evolution | None = None
        self._double: Evolution | None = None
        self._number = next(_numbers)
        finalize(self, _store.drop, self._number).atexit = False

    def evolution(self, kernels: Any) -> Evolution:
        """Return the transition by generators, which the module of the kernels computes at the first call."""
        if self._rounded is None:
            exact = self._exact(kernels)
            rounded = None if exact.elimination is None else exact.elimination.to(self._dtype)
            self._rounded = Evolution(exact.generators.to(self._dtype), exact.sizes.to(self._dtype), rounded)
        return self._rounded

    def _exact(self, kernels: Any) -> Evolution:
        """Return the transition by generators in float64."""
        if self._double is None:
            started = self._host.isinf()
            sizes = self._host.where(~started, 0)
            table = torch.stack([sizes, sizes * (self._alpha or 0.0), started.double()], 1)
            generators, sizes = copied(self._host_generators, self._device), copied(table, self._device)
            triangular = not bool(self._host_generators[3:5].any())
            self._double = Evolution(generators, sizes, None if triangular else kernels.eliminate(generators, sizes))
        return self._double

    def impulses(self, net: Network, kernels: Any, group: range) -> Tensor:
        """Return the impulses of a group of chunks by the generators, (G, P, N)."""
        if (known := _store.get((self._number, group))) is not None:
            return known[0]
        size, steps = net.chunk, len(self._host)
        exact = self._exact(kernels)
        alone = replace(net, batch=size, memories=1, lengths=None, weight_um=None, evolution=exact)
        like = exact.sizes
        unit = torch.eye(size, dtype=like.dtype, device=like.device).repeat(1, steps // size)[..., None]
        memory = like.new_zeros(len(group), size, 1, net.order)
        found = like.new_empty(len(group), size, size, 1, net.order)
        kernels.evolve(alone, memory, group.start, found, unit)
        j, i = torch.tril_indices(size, size, device=self._device)
        rounded = found[:, i, j, 0].to(self._dtype)
        _store.add((self._number, group), (rounded,), size * len(group) / steps)
        return rounded

    def dense(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the transposed products of the matrices of a chunk's steps, (N, C N), and its impulses, (P, N)."""
        if (known := _store.get((self._number, index))) is not None:
            return known[0], known[1]
        span = slice(index * self._chunk, (index + 1) * self._chunk)
        matrices, drives = self._single_steps(self._host[span])
        reached, impulses = [matrices[0]], [[drives[0]]]
        for A, B in zip(matrices[1:], drives[1:], strict=True):
            reached.append(A @ reached[-1])
            impulses.append([*(A @ earlier for earlier in impulses[-1]), B])
        stacked = torch.cat([matrix.T for matrix in reached], 1).to(self._dtype)
        found = stacked, torch.stack([one for row in impulses for one in row]).to(self._dtype)
        _store.add((self._number, index), found, self._chunk / len(self._host))
        return found

    @cached_property
    def _augmented(self) -> tuple[Tensor, float]:
        """[A, B; 0, 0] on the device, (N + 1, N + 1), and its 1-norm."""
        p, q, d, g, h, b = self._host_generators
        A = -(torch.tril(torch.outer(p, q), -1) + torch.diag(d) + torch.triu(torch.outer(g, h), 1))
        augmented = torch.cat([torch.cat([A, b[:, None]], 1), A.new_zeros(1, len(b) + 1)])
        return copied(augmented, self._device), float(torch.linalg.matrix_norm(augmented, 1))

    def _single_steps(self, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Return A (C, N, N) and B (C, N) of steps of zero-order hold, in float64 on the device."""
        augmented, norm = self._augmented
        order = augmented.shape[1] - 1
        started = sizes.isinf()
        finite = sizes.where(~started, 0)
        squarings = halvings(norm * float(finite.max()))  # of a bound, so that no value is read from the device
        factors = copied(finite / 2**squarings, self._device)
        exponential = scaled_exponential(augmented * factors[:, None, None], squarings)
        begins = torch.zeros_like(exponential[0])
        begins[0, order] = 1
        both = torch.where(copied(started, self._device)[:, None, None], begins, exponential)
        return both[:, :order, :order], both[:, :order, order]


class Powers:
    """Constants of m' = A m + B u with the same matrices at each step.

    Args:
        step: A, (N, N) float64 on the CPU.
        drive: B, (N,) float64 on the CPU.
        chunk: C.
        like: tensor of the type and on the device of the results.

    Attributes:
        stacked: A^1 to A^C, transposed, (N, C N).
        impulses: A^0 B to A^(C-1) B, (C, N).
    """

    def __init__(self, step: Tensor, drive: Tensor, chunk: int, like: Tensor):
        powers, impulses = [step], [drive]
        for _ in range(chunk - 1):
            powers.append(step @ powers[-1])
            impulses.append(step @ impulses[-1])
        self.stacked = torch.cat([power.T for power in powers], 1).to(like.device, like.dtype)
        self.impulses = torch.stack(impulses).to(like.device, like.dtype)
