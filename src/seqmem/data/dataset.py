"""What every data set offers: a spec, three splits, loaders of whole batches and a record of where the data came from."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from typing import Any, ClassVar

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler

from seqmem.arguments import checked
from seqmem.data.batch import Batch
from seqmem.data.provenance import Provenance
from seqmem.data.seeds import Seed, generator
from seqmem.data.spec import DataSpec
from seqmem.data.splits import Split


class DataSet(ABC):
    """Sequences in three splits. A subclass with a ``name`` is a data set; its constructor gets the data ready.

    Attributes:
        name: what ``dataset=`` on the command line picks.
        spec: what a model needs to know to be built for this data.
        sizes: number of sequences in each split.
    """

    name: ClassVar[str]

    def __init__(self, spec: DataSpec, sizes: Mapping[Split, int], provenance: Provenance, num_workers: int = 0):
        """Called last by a subclass.

        Args:
            spec: what a model needs to know.
            sizes: number of sequences in each split.
            provenance: where the data came from and how it was split.
            num_workers: processes that make batches; 0 makes them in the main one.
        """
        self.spec = spec
        self.sizes = dict(sizes)
        self.num_workers = num_workers
        self._provenance = provenance

    @abstractmethod
    def batch(self, split: Split, indices: Tensor) -> Batch:
        """The sequences of a split at ``indices``, (B,) int64 from 0 to ``sizes[split] - 1``, as one batch."""

    @checked
    def loader(self, split: Split, batch_size: PositiveInt, seed: Seed | None = 0) -> DataLoader:
        """Batches of a split; the last one may be smaller.

        Args:
            split: "train" is shuffled, "validation" and "test" keep their order; where ``spec.contiguous``, each row of the
                batches keeps it, and that of "train" begins somewhere else in every epoch.
            batch_size: B, sequences in a batch.
            seed: the order of "train" depends on it and on the epoch (``loader.sampler.set_epoch``, which Lightning calls)
                alone: neither on the global random state, which loading leaves as it is, nor on ``num_workers``. None reads
                it in the order of its numbers, as the other splits.

        Raises:
            UserError: no such split, or a number out of range.
        """
        sampler = self.sampler(split, batch_size, seed)
        return (BatchLoader if isinstance(sampler, EpochSampler) else DataLoader)(
            _SplitView(self, split),
            batch_size=batch_size,
            sampler=sampler,
            collate_fn=_already_a_batch,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            # DataLoader draws a seed for its workers on every pass: from here, not from the global state.
            generator=torch.Generator().manual_seed(seed or 0),
        )

    def sampler(self, split: Split, batch_size: int, seed: int | None) -> Sampler[int]:
        """The order of a split: "train" shuffled if there is a seed, else as it is; for a subclass with an order of its own."""
        size = self.sizes[split]
        return SequentialSampler(range(size)) if split != "train" or seed is None else ShuffledSampler(size, seed)

    def describe(self) -> dict[str, Any]:
        """Where the data came from and how it was split, as values that JSON can hold; recorded with each run."""
        known = {} if self.spec.irreducible_error is None else {"irreducible_error": self.spec.irreducible_error}
        return {"name": self.name, "sizes": dict(self.sizes), **known, **asdict(self._provenance)}


class BatchLoader(DataLoader):
    """Batches of an :class:`EpochSampler`. Its place within an epoch can be saved, and taken up again by the next pass."""

    _given = 0
    _skipped = 0

    def __iter__(self) -> Iterator[Batch]:
        self._given, self._skipped = self._skipped, 0
        self.sampler.skipped = self._given * (self.batch_size or 1)
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """How many batches the pass has given so far."""
        return {"batches": self._given}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Let the next pass begin after so many batches."""
        self._skipped = state_dict["batches"]


class EpochSampler(Sampler[int]):
    """All of 0 to ``size - 1`` in an order of a subclass, which may depend on the epoch.

    Attributes:
        skipped: how many of them the next pass leaves out at its beginning.
    """

    def __init__(self, size: int):
        self._size = size
        self._epoch = 0
        self.skipped = 0

    @abstractmethod
    def order(self) -> Iterable[int]:
        """The order of the epoch."""

    def __iter__(self) -> Iterator[int]:
        return islice(self.order(), self.skipped, None)

    @checked
    def set_epoch(self, epoch: NonNegativeInt) -> None:
        """Choose the order of the next pass."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._size


class ShuffledSampler(EpochSampler):
    """An order that depends on the seed and the epoch alone."""

    def __init__(self, size: int, seed: int):
        super().__init__(size)
        self._seed = seed

    def order(self) -> Iterable[int]:
        """A permutation."""
        return generator(self._seed, "order", self._epoch).permutation(self._size).tolist()


class _SplitView(Dataset):
    def __init__(self, data: DataSet, split: Split):
        self._data = data
        self._split = split

    def __len__(self) -> int:
        return self._data.sizes[self._split]

    def __getitems__(self, indices: list[int]) -> Batch:
        return self._data.batch(self._split, torch.tensor(indices))


def _already_a_batch(batch: Any) -> Any:
    return batch
