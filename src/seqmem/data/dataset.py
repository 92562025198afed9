"""DataSet: a spec, three splits, loaders of whole batches, and provenance."""

import multiprocessing
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from multiprocessing import AuthenticationError
from threading import current_thread, main_thread
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler

from seqmem.arguments import checked, parameters, plain
from seqmem.data.batch import Batch
from seqmem.data.provenance import Provenance
from seqmem.data.seeds import Seed, generator
from seqmem.data.spec import DataSpec
from seqmem.data.splits import SPLITS, Split
from seqmem.errors import UserError, suggestion


class DataSet(ABC):
    """Base class of data sets: sequences in three splits.

    A subclass with a ``name`` is registered. Its constructor loads or draws the data. Loading twice with the same arguments
    must give the same numbers, and the provenance must identify them, since results are filed by it: a ``seed`` (or None if
    nothing is random), a checksum of each split, and one of each file. Draw with :func:`seqmem.data.generator` from a seed
    among the arguments, not from the global random state.

    Attributes:
        name: the value of ``dataset=`` on the command line.
        spec: the shapes and the task that models are built from.
        sizes: number of sequences of each split.
        splitting: arguments that choose which sequences are in which split, beside those that do in many data sets
            (:data:`seqmem.data.splits.SPLITTING`); see :meth:`moves`.
        separate_test: the data are drawn, and the test split does not depend on ``train_samples`` and ``validation_samples``.
        whole_batches: the items of :meth:`sampler` are whole batches, each of which :meth:`take` makes one batch of.
        load_seconds: how long :func:`seqmem.datasets.load` took; None if the data set was made without it.
        drew_globally: whether that loading changed the global random state of torch or NumPy.
        summary: what was understood of a user's files, as a small table; None for other data.
        trained: the preparation of the trial whose model the data are loaded for, see :meth:`like` and :meth:`learned`; None
            for the data of a training.
    """

    name: ClassVar[str]
    splitting: ClassVar[tuple[str, ...]] = ()
    separate_test: ClassVar[bool] = False
    whole_batches: ClassVar[bool] = False
    load_seconds: float | None = None
    drew_globally: bool = False
    summary: str | None = None
    trained: Mapping[str, Any] | None = None
    _learned: Mapping[str, Any] | None = None

    def __init__(self, spec: DataSpec, sizes: Mapping[Split, int], provenance: Provenance, num_workers: int = 0):
        """Store the contract; a subclass calls it last.

        Args:
            spec: the shapes and the task.
            sizes: number of sequences of each split.
            provenance: origin of the data and of its split, with a checksum for each split.
            num_workers: worker processes that make batches; 0 makes them in the main process.
        """
        self.spec = spec
        self.sizes = _checked_sizes(self.name, sizes)
        self.num_workers = num_workers
        self._provenance = provenance

    @abstractmethod
    def batch(self, split: Split, indices: Tensor) -> Batch:
        """Return the sequences at ``indices`` of a split as one batch.

        Args:
            split: "train", "validation" or "test".
            indices: (B,) int64, from 0 to ``sizes[split] - 1``.
        """

    @checked
    def loader(self, split: Split, batch_size: PositiveInt, seed: Seed | None = 0) -> DataLoader:
        """Return a loader of the batches of a split; the last batch may be smaller.

        Args:
            split: "train" is shuffled, "validation" and "test" keep their order. If ``spec.contiguous``, each row of the
                batches keeps its order, and "train" begins at a different place in every epoch.
            batch_size: B, sequences in a batch.
            seed: the order of "train" depends on this seed and on the epoch alone (``loader.sampler.set_epoch``, which
                Lightning calls). It does not depend on the global random state, which stays unchanged, nor on ``num_workers``.
                None keeps the order of the indices.

        Raises:
            UserError: an unknown split, or a number out of range.
        """
        sampler = self.sampler(split, batch_size, seed)
        return (BatchLoader if isinstance(sampler, EpochSampler) else DataLoader)(
            _SplitView(self, split),
            batch_size=None if self.whole_batches else batch_size,
            sampler=sampler,
            collate_fn=_already_a_batch,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            multiprocessing_context=_start_method() if self.num_workers > 0 else None,
            worker_init_fn=_quiet_at_interrupts,
            # DataLoader draws a seed for its workers on every pass: from this generator, not from the global state.
            generator=torch.Generator().manual_seed(seed or 0),
        )

    def sampler(self, split: Split, batch_size: int, seed: int | None) -> Sampler:
        """Return the order of a split: of its indices, or of its batches if ``whole_batches``; a subclass may override it.

        "train" is shuffled unless ``seed`` is None; the other splits keep their order.
        """
        size = self.sizes[split]
        return SequentialSampler(range(size)) if split != "train" or seed is None else ShuffledSampler(size, seed)

    def take(self, split: Split, item: Any) -> Batch:
        """Return the batch of a list of indices, or of an item of :meth:`sampler` if ``whole_batches``."""
        return self.batch(split, torch.tensor(item))

    def describe(self) -> dict[str, Any]:
        """Return name, sizes and provenance as values that JSON can hold.

        Each run records them. Runs are compared, averaged and found again only if they are equal.
        """
        known = {} if self.spec.irreducible_error is None else {"irreducible_error": self.spec.irreducible_error}
        return plain({"name": self.name, "sizes": dict(self.sizes), **known, **asdict(self._provenance)})

    def sequence_names(self, split: Split) -> list[str] | None:
        """Return the name of each sequence of a split, as a user's files have it; None if sequences have numbers alone."""
        return None

    @classmethod
    def at_length(cls, arguments: Mapping[str, Any], length: int) -> dict[str, Any]:
        """Return the arguments of the same data with sequences of one length.

        Args:
            arguments: of the constructor.
            length: the new value of ``length``, and of ``min_length`` if there is one.

        Raises:
            UserError: the data set has no argument ``length``.
        """
        known = parameters(cls)
        if "length" not in known:
            raise UserError(
                f"dataset.length: got {length}, but {cls.name} has no length to choose{suggestion('length', known)}"
            )
        return {**arguments, **{key: length for key in ("min_length", "length") if key in known}}

    @classmethod
    def like(cls, preparation: Mapping[str, Any], arguments: Mapping[str, Any]) -> Self:
        """Create a data set whose inputs are prepared as those of a trial.

        Args:
            preparation: what :meth:`preparation` returned for the trial's data.
            arguments: of the constructor.

        Raises:
            UserError: as the constructor.
        """
        data = cls.__new__(cls)
        data.trained = preparation
        data.__init__(**arguments)  # type: ignore[misc]
        return data

    @classmethod
    def moves(cls, argument: str, trained: Any, given: Any) -> bool:
        """Return whether another value of an argument that chooses splits may move training sequences to other splits.

        Args:
            argument: one of those that choose splits.
            trained: its value in the training.
            given: its value in an evaluation.
        """
        return bool(given != trained)

    def of_trial(self, seed: int) -> Self:
        """Return the data of the trial with a seed; a subclass whose splits depend on the trial overrides it.

        The shapes and the description of the data are those of all trials: results of different seeds are averaged.
        """
        return self

    def preparation(self) -> Mapping[str, Any] | None:
        """Return how later inputs are prepared for the model, as plain values that checkpoints keep; None for nothing.

        By default these are the values of :meth:`learned`.
        """
        return self._learned

    def learned(self, name: str, compute: Callable[[], Any]) -> Any:
        """Return a statistic of the training split, such as a mean or a vocabulary; a constructor calls it.

        For the model of a finished trial it is the value of that trial's training, whatever the arguments are now: otherwise
        an evaluation with other arguments would give the model other inputs than it was trained on.

        Args:
            name: under which checkpoints keep the value.
            compute: returns the value: a number, a text, an array, or a list of them.

        Returns:
            The value as JSON can hold it; arrays are lists.

        Raises:
            UserError: the trial has no value of this name.
        """
        if self.trained is not None and name not in self.trained:
            raise UserError(f"{self.name}: got a checkpoint without {name}, expected that of its training; train again")
        value = compute() if self.trained is None else self.trained[name]
        value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        self._learned = {**(self._learned or {}), name: value}
        return value


def _start_method() -> str | None:
    """Return the method to start worker processes if the program's own is not one of Python's, else None.

    A worker of joblib has "loky", which cannot start the workers of a DataLoader.
    """
    known, own = multiprocessing.get_all_start_methods(), multiprocessing.get_start_method(allow_none=True)
    return None if own is None or own in known else known[0]


def _quiet_at_interrupts(worker: int) -> None:
    """Let a worker process print no traceback where the process that it makes batches for is interrupted.

    That process asks a thread of the worker for the memory of each tensor (:mod:`multiprocessing.resource_sharer`). The thread
    reports connections that close too early, as they do at a signal.
    """
    usual = sys.excepthook

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if current_thread() is main_thread() or not isinstance(error, EOFError | OSError | AuthenticationError):
            usual(kind, error, trace)

    sys.excepthook = report


class BatchLoader(DataLoader):
    """Batches in the order of an :class:`EpochSampler`. Its position within an epoch can be saved and restored."""

    _given = 0
    _skipped = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        assert isinstance(self.sampler, EpochSampler)
        self._given, self._skipped = self._skipped, 0
        self.sampler.skipped = self._given * (self.batch_size or 1)
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the position: ``batches``, the number of batches of this pass so far."""
        return {"batches": self._given}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Let the next pass begin at a saved position."""
        self._skipped = state_dict["batches"]


class EpochSampler(Sampler):
    """All indices from 0 to ``size - 1``, or ``size`` whole batches, in an order that a subclass derives from the epoch.

    Attributes:
        skipped: number of items that the next pass leaves out at its beginning.
    """

    def __init__(self, size: int):
        self._size = size
        self._epoch = 0
        self.skipped = 0

    @abstractmethod
    def order(self) -> Iterable[Any]:
        """Return the order of the current epoch."""

    def limit(self, count: int) -> None:
        """Choose which items are the first ``count`` if no others are read; by default those that are the first anyway."""

    def __iter__(self) -> Iterator[Any]:
        return islice(self.order(), self.skipped, None)

    @checked
    def set_epoch(self, epoch: NonNegativeInt) -> None:
        """Set the epoch, counted from 0, that the order of the next pass depends on."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._size


class ShuffledSampler(EpochSampler):
    """A permutation that depends on the seed and the epoch alone."""

    def __init__(self, size: int, seed: int):
        super().__init__(size)
        self._seed = seed

    def order(self) -> Iterable[int]:
        """Return a permutation of the indices."""
        return generator(self._seed, "order", self._epoch).permutation(self._size).tolist()


class _SplitView(Dataset):
    """One split as a map-style data set of torch whose items are fetched as whole batches."""

    def __init__(self, data: DataSet, split: Split):
        self._data = data
        self._split = split

    def __len__(self) -> int:
        return self._data.sizes[self._split]

    def __getitem__(self, item: Any) -> Batch:
        return self._data.take(self._split, item)

    def __getitems__(self, indices: list[int]) -> Batch:
        return self._data.take(self._split, indices)


def _checked_sizes(name: str, sizes: Mapping[Split, int]) -> dict[Split, int]:
    given = plain(dict(sizes))
    if set(given) != set(SPLITS) or not all(type(size) is int and size > 0 for size in given.values()):
        raise UserError(f"sizes of {name}: got {given}, expected a number of sequences above 0 for each of {', '.join(SPLITS)}")
    return given


def _already_a_batch(batch: Any) -> Any:
    return batch
