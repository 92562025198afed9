"""The batches of a data set's splits that a trial reads."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader

from seqmem.data.batch import Batch
from seqmem.data.dataset import EpochSampler
from seqmem.data.spec import DataSpec
from seqmem.data.splits import Split
from seqmem.training.config import TrainConfig, evaluation_batch_size, limited
from seqmem.training.loop.copied_ahead import ahead_loader


class Data(Protocol):
    """Interface of a data set for training."""

    spec: DataSpec

    def loader(self, split: Split, batch_size: int, seed: int | None = 0) -> DataLoader:
        """Return the batches of a split; seed and epoch determine the order of "train", None keeps the data set's."""

    def describe(self) -> dict[str, Any]:
        """Return where the data came from, as values that JSON can hold."""


@dataclass(frozen=True)
class Splits:
    """Loaders by split, and how many batches of each are read.

    Attributes:
        loaders: by split.
        counts: batches read of each split, at most as many as it has.
    """

    loaders: dict[Split, Any]
    counts: dict[Split, int]

    @classmethod
    def of(cls, data: Data, train: TrainConfig, seed: int | None, smoke_test: bool) -> "Splits":
        """Create the loaders of a data set.

        Args:
            data: the data set.
            train: batch sizes and limits.
            seed: of the order of the training batches; None keeps the data set's order.
            smoke_test: read a few batches only.
        """
        evaluated = evaluation_batch_size(train, data.spec)
        loaders: dict[Split, Any] = {
            "train": data.loader("train", train.batch_size, seed),
            "validation": data.loader("validation", evaluated),
            "test": data.loader("test", evaluated),
        }
        for loader in loaders.values():
            loader.worker_init_fn = partial(_leave_group, then=loader.worker_init_fn)
        counts = {split: limit_batches(loaders[split], limit, smoke_test) for split, limit in train.limits.items()}
        return cls(loaders, counts)

    def on(self, device: torch.device, dtype: torch.dtype) -> "Splits":
        """Return the same batches for a model on a device: on a GPU each is copied while the one before it is used.

        Args:
            device: of the model.
            dtype: type of the model's inputs.
        """
        return Splits({split: ahead_loader(loader, device, dtype) for split, loader in self.loaders.items()}, self.counts)

    def read(self, split: Split) -> Iterator[Batch]:
        """Yield the batches that are read; a loader creates none before they are needed."""
        yield from islice(self.loaders[split], self.counts[split])


def limit_batches(loader: DataLoader, limit: int | float, smoke_test: bool) -> int:
    """Limit the batches of a loader, and return how many are read. Of sequences of several lengths, its sampler chooses which.

    Args:
        loader: of a split.
        limit: as for :func:`seqmem.training.config.limited`.
        smoke_test: read a few batches only.
    """
    whole = len(loader)
    count = limited(whole, limit, smoke_test)
    if count < whole and isinstance(loader.sampler, EpochSampler):
        loader.sampler.limit(count)
    return count


def _leave_group(worker: int, then: Callable[[int], None] | None) -> None:
    """Move a worker into a process group of its own, so that a signal of the terminal or timeout(1) does not end it.

    The training still needs its batches until the checkpoint is saved, and then ends the worker.

    Args:
        worker: number of the worker.
        then: the loader's own initialisation of a worker, called last.
    """
    os.setpgid(0, 0)
    if then is not None:
        then(worker)
