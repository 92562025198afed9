"""Sequences to measure models with: the rows of batches that are longer than the largest lag."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqmem.data.batch import Batch
from seqmem.data.dataset import DataSet
from seqmem.data.seeds import generator
from seqmem.data.splits import Split
from seqmem.diagnostics.states import inputs_at_lags
from seqmem.errors import UserError

FEWEST = 4
"""Fewest sequences: two to fit a map to, and two to measure it on."""


@dataclass(frozen=True)
class Sample:
    """Sequences of more than K steps, the same at all lags from 0 to K.

    Attributes:
        batches: of all n sequences.
        gradient: batches of those sequences of which gradients are taken.
        longest: K, the largest lag.
        lags: (L,) int64 of the read-out, from 0 to K.
        inputs: (n, L, C) values, or (n, L) tokens: the inputs at these lags.
        fitted: (n,) bool: sequences to fit the read-out to, a random half.
        steps: of the longest sequence.
    """

    batches: Sequence[Batch]
    gradient: Sequence[Batch]
    longest: int
    lags: Tensor
    inputs: Tensor
    fitted: Tensor
    steps: int

    @classmethod
    def of(
        cls, batches: Iterable[Batch], longest: int | None = None, gradients: int = 64, batch_size: int = 64, seed: int = 0
    ) -> "Sample":
        """Choose the sequences of batches that are long enough.

        Args:
            batches: the sequences.
            longest: K; None for the largest lag that at least half of the sequences have, and ``FEWEST`` of them.
            gradients: number of sequences of which gradients are taken, at most all.
            batch_size: of the sample's batches.
            seed: seed of the random halves, and of the choice of sequences for gradients.

        Raises:
            UserError: fewer than ``FEWEST`` sequences are long enough.
        """
        given = list(batches)
        ends = torch.cat([batch.on_host.row_lengths for batch in given])
        if longest is None:
            longest = _most(ends, min(max((len(ends) + 1) // 2, FEWEST), len(ends)))
        if int((ends > longest).sum()) < FEWEST:
            raise UserError(_too_short(longest, ends))
        long = [batch.rows((batch.on_host.row_lengths > longest).nonzero()[:, 0]) for batch in given]
        kept = _batched([batch for batch in long if len(batch)], batch_size)
        count = sum(map(len, kept))
        order = torch.from_numpy(generator(seed, "memory").permutation(count))
        fitted, traced = torch.zeros(count, dtype=torch.bool), torch.zeros(count, dtype=torch.bool)
        fitted[order[: count // 2]] = True
        traced[order[:gradients]] = True
        lags = read_out_lags(longest)
        return cls(
            kept,
            list(_chosen(kept, traced)),
            longest,
            lags,
            torch.cat([inputs_at_lags(batch.inputs, lags, batch.lengths) for batch in kept]),
            fitted,
            int(ends.max()),
        )


def drawn(data: DataSet, split: Split, count: int, seed: int = 0, batch_size: int = 64) -> list[Batch]:
    """Return random sequences of a split, or all if it has no more, in the split's order.

    Args:
        data: the data set. Where its batches are contiguous, a sequence is a chunk.
        split: "train", "validation" or "test".
        count: number of sequences.
        seed: seed of the choice.
        batch_size: of the batches.
    """
    size = data.sizes[split]
    chosen = np.sort(generator(seed, "memory", split).choice(size, min(count, size), replace=False))
    return [data.batch(split, indices) for indices in torch.from_numpy(chosen).split(batch_size)]


def read_out_lags(longest: int) -> Tensor:
    """Return the lags of a read-out, (L,) int64.

    All from 0 to 32; beyond that 16 for each doubling, with 50, 100, 200, 500 and so on, up to ``longest``.
    """
    dense = np.rint(32 * 2 ** np.arange(0, np.log2(max(longest, 32) / 32), 1 / 16)).astype(int).tolist()
    plain = [k * 10**power for power in range(1, len(str(longest))) for k in (1, 2, 5)]
    return torch.tensor(sorted({*range(33), *dense, *plain, longest} & {*range(longest + 1)}))


def _chosen(batches: Sequence[Batch], which: Tensor) -> Iterator[Batch]:
    for batch, own in zip(batches, which.split([len(batch) for batch in batches]), strict=True):
        if own.any():
            yield batch.rows(own.nonzero()[:, 0])


def _batched(batches: Sequence[Batch], size: int) -> list[Batch]:
    """Join batches of equal shapes, and split them into batches of ``size`` rows."""
    groups: dict[object, list[Batch]] = {}
    for batch in batches:
        absent = tuple(getattr(batch, each.name) is None for each in fields(batch))
        groups.setdefault((batch.inputs.shape[1:], batch.targets.shape[1:], batch.rate, absent), []).append(batch)
    joined = map(_joined, groups.values())
    return [batch.rows(slice(k, k + size)) for batch in joined for k in range(0, len(batch), size)]


def _joined(batches: Sequence[Batch]) -> Batch:
    first = batches[0]
    tensors = [each.name for each in fields(first) if isinstance(getattr(first, each.name), Tensor)]
    joined: dict[str, Any] = {name: torch.cat([getattr(batch, name) for batch in batches]) for name in tensors}
    return replace(first, **joined)


def _too_short(longest: int, ends: Tensor) -> str:
    if len(ends) < FEWEST:
        return f"got {len(ends)} sequences, expected at least {FEWEST}, of which half are to fit a map and half to measure it"
    return f"lags: got {longest}, expected at most {_most(ends, FEWEST)}, which at least {FEWEST} of {len(ends)} sequences have"


def _most(ends: Tensor, count: int) -> int:
    """Return the largest lag that ``count`` sequences have."""
    return max(int(ends.sort(descending=True).values[count - 1]) - 1, 0)
