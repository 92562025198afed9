"""Batches on a GPU, each copied from page-locked memory while the one before it trains."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from seqmem.data.batch import Batch
from seqmem.data.checks import check_batch
from seqmem.data.dataset import BatchLoader

Item = TypeVar("Item")


def copied_ahead(batches: Iterable[Batch], device: torch.device, dtype: torch.dtype = torch.float32) -> Iterator[Batch]:
    """Yield batches on a device; on a GPU each is copied, in a stream of its own, before the one before it is yielded.

    Args:
        batches: on any device.
        device: of the model.
        dtype: type of the model's inputs, in which different times must differ.

    Raises:
        UserError: a batch holds a wrong length or time, see :func:`seqmem.data.checks.check_batch`.
    """
    if device.type != "cuda":
        yield from (batch.to(device) for batch in batches)
        return
    stream = _stream(device)

    def copied(batch: Batch) -> "_Copy":
        check_batch(batch, dtype)
        return _Copy(batch, device, stream)

    yield from (copy.arrived() for copy in one_ahead(map(copied, batches)))


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream of all copies to a device: torch keeps freed memory for each stream, and would for each epoch's."""
    return torch.cuda.Stream(device)


def one_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield items, each after the next one was taken."""
    before: list[Item] = []
    for item in items:
        yield from before
        before = [item]
    yield from before


class _Copy:
    """A batch on its way to a GPU."""

    def __init__(self, batch: Batch, device: torch.device, stream: torch.cuda.Stream):
        with torch.cuda.stream(stream):
            pinned = batch.pin_memory() if batch.targets.device.type == "cpu" else batch
            self._batch = pinned.to(device, non_blocking=True)
            self._event = stream.record_event()
        self._device = device

    def arrived(self) -> Batch:
        """Return the batch; work that is queued from now on comes after the copy."""
        current = torch.cuda.current_stream(self._device)
        current.wait_event(self._event)
        for value in vars(self._batch).values():
            if isinstance(value, Tensor):
                value.record_stream(current)  # its memory was allocated for the other stream
        return self._batch


class AheadLoader:
    """A loader whose batches are :func:`copied_ahead`, with its order and length.

    Args:
        loader: a DataLoader of whole batches.
        device: of the model.
        dtype: type of the model's inputs.
    """

    def __init__(self, loader: DataLoader, device: torch.device, dtype: torch.dtype = torch.float32):
        self.loader, self.device, self.dtype = loader, device, dtype
        self.ahead = 0

    @property
    def sampler(self) -> Any:
        """The loader's sampler, whose epoch Lightning sets."""
        return self.loader.sampler

    @property
    def batch_sampler(self) -> Any:
        """The loader's sampler of batches, which Lightning looks at."""
        return self.loader.batch_sampler

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        self.ahead = 0
        for batch in copied_ahead(self._counted(), self.device, self.dtype):
            self.ahead -= 1
            yield batch

    def _counted(self) -> Iterator[Batch]:
        for batch in self.loader:
            self.ahead += 1
            yield batch


class StatefulAheadLoader(AheadLoader):
    """The same for a loader whose position within an epoch can be saved and restored."""

    loader: BatchLoader

    def state_dict(self) -> dict[str, int]:
        """Return the position of the batches that were used; one more may have been copied."""
        return {"batches": self.loader.state_dict()["batches"] - self.ahead}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Let the next pass begin at a saved position."""
        self.loader.load_state_dict(state_dict)


def ahead_loader(loader: DataLoader, device: torch.device, dtype: torch.dtype = torch.float32) -> Any:
    """Return a loader whose batches are :func:`copied_ahead`; elsewhere than on a GPU the loader itself."""
    if device.type != "cuda":
        return loader
    kind = StatefulAheadLoader if isinstance(loader, BatchLoader) else AheadLoader
    return kind(loader, device, dtype)
