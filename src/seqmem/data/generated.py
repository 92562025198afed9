"""GeneratedDataSet: sequences that a function draws, anew in each epoch or once, with one length a batch."""

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from seqmem.data.batch import IGNORE_INDEX, Batch
from seqmem.data.dataset import DataSet, EpochSampler
from seqmem.data.provenance import Provenance, sha256
from seqmem.data.seeds import generator
from seqmem.data.spec import DataSpec
from seqmem.data.splits import SPLITS, Split
from seqmem.errors import UserError

BLOCK_ROWS = 512
BLOCK_STEPS = 2**20
"""Sequences and steps of the blocks in which fixed splits are drawn, at most; a block has at least one sequence."""

MOST_STEPS = 2**26
"""Steps of the longest sequence: as tokens it takes half a GiB."""

KEPT_BYTES = 2**28
"""Memory for blocks that stay after their first use; further blocks are drawn again whenever they are needed."""


class Drawn(NamedTuple):
    """A batch of training sequences that does not exist before it is drawn: the numbers that determine it.

    Attributes:
        seed: of the trial.
        epoch: number of the epoch.
        number: of the batch in its epoch.
        rows: B, sequences of the batch.
    """

    seed: int
    epoch: int
    number: int
    rows: int


class GeneratedDataSet(DataSet):
    """Base class of data sets whose sequences are drawn by a function of a length.

    A subclass passes a spec and its arguments to this constructor and implements :meth:`draw`, see the example in
    :mod:`seqmem.datasets`. Nothing is drawn before it is needed.

    Validation and test are fixed: they depend on ``seed`` alone. With ``fresh``, training sequences are drawn anew in each
    epoch: a batch depends on the seed of the trial, the epoch, and its number in the epoch, so that a trial that resumes
    within an epoch sees the same batches, with any number of worker processes. Without, training is a fixed split, too.
    :meth:`batch` and a loader without a seed read a fixed training split in both cases.

    All sequences of a batch have one length. Of several lengths, a fresh batch has a random one, and a fixed split has each
    equally often, in ascending order.

    Attributes:
        fresh: whether training sequences are drawn anew in each epoch.
        seed: of the fixed splits.
        lengths: by split, the lengths of its sequences, as :meth:`draw` takes them.
    """

    separate_test = True
    whole_batches = True

    def __init__(
        self,
        spec: DataSpec,
        sizes: Mapping[Split, int],
        lengths: Mapping[Split, Sequence[int]],
        *,
        seed: int,
        fresh: bool = True,
        num_workers: int = 0,
    ):
        """Store the contract; a subclass calls it last.

        Args:
            spec: the shapes and the task; tokens and class indices are kept in the smallest type that holds its sizes.
            sizes: number of sequences of each split; with ``fresh``, that of "train" counts as an epoch.
            lengths: by split, one or more lengths in ascending order, see :func:`mixed_lengths`.
            seed: of the fixed splits.
            fresh: draw training sequences anew in each epoch, from the trial's seed.
            num_workers: worker processes that make batches; 0 makes them in the main process.

        Raises:
            UserError: a sequence has more than ``MOST_STEPS`` steps.
        """
        if spec.max_length > MOST_STEPS:
            raise UserError(f"dataset: got a length of {spec.max_length} steps, expected at most {MOST_STEPS}")
        self.seed, self.fresh = seed, fresh
        self.lengths = {split: list(lengths[split]) for split in SPLITS}
        self._blocks: dict[tuple[Split, int, int], tuple[np.ndarray, np.ndarray]] = {}
        self._latest: dict[tuple[Split, int, int], tuple[np.ndarray, np.ndarray]] = {}
        self._kept = 0
        self._integer = np.min_scalar_type(-max(spec.input_size, spec.output_size, -IGNORE_INDEX))
        super().__init__(spec, sizes, Provenance(seed, {}), num_workers)
        self._bounds = {split: _bounds(self.sizes[split], len(self.lengths[split])) for split in SPLITS}

    @abstractmethod
    def draw(self, random: np.random.Generator, count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw sequences of one length.

        Args:
            random: source of all random numbers.
            count: B, number of sequences.
            length: one of ``lengths``; T may be larger, by steps of the task's own.

        Returns:
            Inputs, (B, T) integers or (B, T, C) float32, and class indices, (B,), (B, K) or (B, T) integers, which are
            ``IGNORE_INDEX`` for targets that do not count.
        """

    def draw_fixed(self, split: Split, first: int, count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw sequences of a fixed split; a subclass may override it where the splits or their sequences depend on each other.

        Args:
            split: "train", "validation" or "test".
            first: number of the first one among those of its length in the split.
            count: B, number of sequences.
            length: one of ``lengths``.

        Returns:
            As :meth:`draw`. It must depend on ``seed`` and these arguments alone.
        """
        return self.draw(generator(self.seed, self.name, split, length, first), count, length)

    def count_of(self, split: Split, length: int) -> int:
        """Return how many sequences of a length a fixed split has."""
        if length not in self.lengths[split]:
            return 0
        group = self.lengths[split].index(length)
        return self._bounds[split][group + 1] - self._bounds[split][group]

    def batch(self, split: Split, indices: Tensor) -> Batch:
        """Return sequences of the fixed split, which "train" has with ``fresh``, too.

        Sequences of different lengths are padded: inputs with 0 and targets with ``IGNORE_INDEX``, with ``lengths``.
        """
        inputs, targets = zip(*(self._sequence(split, index) for index in indices.tolist()), strict=True)
        steps = [len(row) for row in inputs]
        if len(set(steps)) == 1:
            return _batch(np.stack(inputs), np.stack(targets))
        together = _padded(targets, IGNORE_INDEX) if targets[0].ndim else np.stack(targets)
        return replace(_batch(_padded(inputs, 0), together), lengths=torch.tensor(steps))

    def take(self, split: Split, item: Any) -> Batch:
        """Return the batch of a list of indices, or draw one."""
        if not isinstance(item, Drawn):
            return super().take(split, item)
        random = generator(item.seed, self.name, split, "epoch", item.epoch, item.number)
        lengths = self.lengths[split]
        length = lengths[random.integers(len(lengths))] if len(lengths) > 1 else lengths[0]
        return _batch(*self.draw(random, item.rows, length))

    def sampler(self, split: Split, batch_size: int, seed: int | None) -> Sampler:
        """Return the batches of a split; those of "train" depend on seed and epoch unless ``seed`` is None."""
        if split == "train" and self.fresh and seed is not None:
            return FreshBatches(self.sizes[split], batch_size, seed)
        return FixedBatches(self._bounds[split], batch_size, seed if split == "train" else None)

    def describe(self) -> dict[str, Any]:
        """Return name, sizes, provenance, and ``fresh`` if it is true; the validation and test splits are drawn for it.

        The checksum of "train" is that of the first block of each length: the other blocks follow from the same seed, and an
        evaluation at large lengths need not draw them.
        """
        if not self._provenance.sha256:
            self._provenance = Provenance(self.seed, {split: self._checksum(split) for split in SPLITS})
        return {**super().describe(), **({"fresh": True} if self.fresh else {})}

    def _checksum(self, split: Split) -> str:
        digest = hashlib.sha256()
        for group, (start, end) in enumerate(pairwise(self._bounds[split])):
            blocks = -(-(end - start) // self._block_rows(split, group))
            for number in range(min(blocks, 1) if split == "train" else blocks):
                digest.update(sha256(*self._block(split, group, number)).encode())
        return digest.hexdigest()

    def _block_rows(self, split: Split, group: int) -> int:
        return max(1, min(BLOCK_ROWS, BLOCK_STEPS // self.lengths[split][group]))

    def _sequence(self, split: Split, index: int) -> tuple[np.ndarray, np.ndarray]:
        bounds = self._bounds[split]
        group = int(np.searchsorted(bounds, index, side="right")) - 1
        number, row = divmod(index - bounds[group], self._block_rows(split, group))
        inputs, targets = self._block(split, group, number)
        return inputs[row], targets[row]

    def _block(self, split: Split, group: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a block of the fixed split, drawn now or before."""
        key = (split, group, number)
        found = self._blocks.get(key) or self._latest.get(key)
        if found is not None:
            return found
        length, rows = self.lengths[split][group], self._block_rows(split, group)
        count = min(rows, self._bounds[split][group + 1] - self._bounds[split][group] - number * rows)
        inputs, targets = self.draw_fixed(split, number * rows, count, length)
        block = self._small(inputs), self._small(targets)
        size = block[0].nbytes + block[1].nbytes
        if (split == "train" and not self.fresh) or self._kept + size <= KEPT_BYTES:
            self._blocks[key] = block
            self._kept += size
        else:
            self._latest = {key: block}
        return block

    def _small(self, array: np.ndarray) -> np.ndarray:
        return array.astype(self._integer if _is_whole(array) else np.float32)


class FreshBatches(EpochSampler):
    """Batches of an epoch that are drawn from the seed, the epoch, and their number.

    Args:
        size: number of sequences that count as an epoch.
        rows: B, sequences of a batch; the last batch may have fewer.
        seed: of the trial.
    """

    def __init__(self, size: int, rows: int, seed: int):
        super().__init__(-(-size // rows))
        self._sequences, self._rows, self._seed = size, rows, seed

    def order(self) -> Iterator[Drawn]:
        """Yield the batches of the current epoch."""
        for number in range(len(self)):
            yield Drawn(self._seed, self._epoch, number, min(self._rows, self._sequences - number * self._rows))


class FixedBatches(EpochSampler):
    """Batches of the indices of a fixed split, each from one group of consecutive indices.

    Args:
        bounds: the first index of each group, and the number of all indices.
        rows: B, indices of a batch; the last batch of a group may have fewer.
        seed: of the order of indices and batches, which depends on the epoch, too; None keeps them in ascending order.
    """

    _limit: int | None = None

    def __init__(self, bounds: Sequence[int], rows: int, seed: int | None):
        self._groups = [np.arange(start, end) for start, end in pairwise(bounds) if end > start]
        self._rows, self._seed = rows, seed
        super().__init__(sum(-(-len(group) // rows) for group in self._groups))

    def limit(self, count: int) -> None:
        """Without a seed, read evenly spaced batches, so that their lengths are spread over all."""
        if self._seed is None and len(self._groups) > 1:
            self._limit = self._size = count

    def order(self) -> Iterable[list[int]]:
        """Return the batches of the current epoch; those of a single group end with the smaller one."""
        groups = self._groups
        random = None if self._seed is None else generator(self._seed, "order", self._epoch)
        if random is not None:
            groups = [random.permutation(group) for group in groups]
        batches = [group[start : start + self._rows].tolist() for group in groups for start in range(0, len(group), self._rows)]
        if random is not None and len(groups) > 1:
            return [batches[place] for place in random.permutation(len(batches))]
        if self._limit is not None:
            return [batches[(2 * k + 1) * len(batches) // (2 * self._limit)] for k in range(self._limit)]
        return batches


def mixed_lengths(shortest: int, longest: int) -> range:
    """Return all lengths from ``min_length`` to ``length``, the arguments of a data set.

    Raises:
        UserError: ``min_length`` is more than ``length``.
    """
    if shortest > longest:
        raise UserError(f"dataset.min_length: got {shortest}, expected at most dataset.length={longest}")
    return range(shortest, longest + 1)


def _batch(inputs: np.ndarray, targets: np.ndarray) -> Batch:
    return Batch(
        torch.tensor(inputs, dtype=torch.int64 if _is_whole(inputs) else None), torch.tensor(targets, dtype=torch.int64)
    )


def _is_whole(array: np.ndarray) -> bool:
    """Return whether an array has integers or truth values."""
    return array.dtype.kind in "biu"


def _padded(rows: Sequence[np.ndarray], value: int) -> np.ndarray:
    """Stack rows (T, ...) of different T, filled with a value."""
    padded = np.full((len(rows), max(map(len, rows)), *rows[0].shape[1:]), value, rows[0].dtype)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    return padded


def _bounds(size: int, groups: int) -> list[int]:
    """Bounds of ``groups`` groups of indices 0 to ``size - 1`` whose sizes differ by at most 1."""
    return [group * size // groups for group in range(groups + 1)]
