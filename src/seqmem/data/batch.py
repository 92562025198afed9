"""Batch: the input of a model and of its loss, one training step at a time."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from seqmem.errors import UserError

IGNORE_INDEX = -100
"""A class index that loss, metrics and weight leave out; the default of torch's cross-entropy."""


@dataclass
class Batch:
    """A batch of B sequences of at most T steps, T > 0. NumPy arrays become tensors, and their integers int64.

    Padding never counts: neither the steps after a row's length, nor targets of the class ``IGNORE_INDEX``, nor outputs at the
    last K steps that a row of fewer steps does not have. Their values have no meaning and may be NaN. Missing targets, which
    ``known`` marks, do not count either.
    :func:`seqmem.data.masks.counted_targets` is the mask of all tasks.

    Attributes:
        inputs: (B, T, C) floating point, or (B, T) int64 tokens.
        targets: class indices int64, (B,) for one output, (B, K) for K; or values floating point, (B, D) or (B, K, D). K is T
            for an output at every step. For outputs at the last K steps, T is at least K, and the last target belongs to the
            last valid step of its row.
        lengths: (B,) int64, number of valid leading steps of each row; None if all T are valid.
        times: (B, T) floating point, non-decreasing along T, in the data's unit; None if steps are evenly spaced.
        target_lengths: (B,) int64, valid leading steps of targets (B, T', D); None if those of the inputs apply.
        labels: (B,) int64, the class of each sequence if it is known and not the target; None otherwise.
        restarts: (B,) bool, only where batches are contiguous: the row is the beginning of a sequence, so that it begins with
            the initial state and not with that of the previous batch; None if no row is.
        rate: time between two steps, as a multiple of that in the training split; a layer that can rescale its step size uses
            it, see :attr:`seqmem.sequence.SequenceLayer.rescales`. A number of Python or NumPy.
        known: bool of the shape of ``targets``, only where these are values: (B, D) or (B, K, D). False for a missing target,
            whose value is any finite number and does not count; None if no target is missing.
        places: (B, K) int64, the steps that targets (B, K) belong to; None for those that the data set's spec defines. A row
            with fewer targets is padded with targets ``IGNORE_INDEX``.
        host: the same batch in the memory of the host, whose lengths and targets say without waiting for the device what
            counts; :meth:`to` sets it. None if this batch is there itself.

    Raises:
        UserError: T is 0.
    """

    inputs: Tensor
    targets: Tensor
    lengths: Tensor | None = None
    times: Tensor | None = None
    target_lengths: Tensor | None = None
    labels: Tensor | None = None
    restarts: Tensor | None = None
    known: Tensor | None = None
    rate: float = 1.0
    places: Tensor | None = None
    host: Any = field(default=None, repr=False, compare=False)

    @property
    def on_host(self) -> "Batch":
        """The batch whose values can be read without waiting for a device: ``host``, or this one without it."""
        host: Batch | None = self.host
        return self if host is None else host

    @property
    def output_lengths(self) -> Tensor | None:
        """Valid leading steps of the targets: ``target_lengths``, or else ``lengths``."""
        return self.lengths if self.target_lengths is None else self.target_lengths

    @property
    def row_lengths(self) -> Tensor:
        """(B,) int64 valid steps of each row of the inputs: ``lengths``, or T for each row."""
        rows, steps = self.inputs.shape[:2]
        return torch.full((rows,), steps, device=self.inputs.device) if self.lengths is None else self.lengths

    @property
    def targets_or_nan(self) -> Tensor:
        """The targets, NaN for a missing one."""
        return self.targets if self.known is None else self.targets.where(self.known, float("nan"))

    @cached_property
    def ignores(self) -> bool:
        """Whether a target's class is ``IGNORE_INDEX``. The targets must not change afterwards."""
        if self.host is not None:
            return self.on_host.ignores
        return not self.targets.is_floating_point() and bool((self.targets == IGNORE_INDEX).any())

    @cached_property
    def has_empty_rows(self) -> bool:
        """Whether a row has no valid target step. The lengths must not change afterwards."""
        if self.host is not None:
            return self.on_host.has_empty_rows
        return self.output_lengths is not None and bool((self.output_lengths == 0).any())

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, np.ndarray):
                integer = np.issubdtype(value.dtype, np.integer)
                setattr(self, each.name, torch.tensor(value, dtype=torch.int64 if integer else None))
        if self.inputs.shape[1] == 0:
            raise UserError(
                f"a batch of sequences without a step: got inputs of shape {tuple(self.inputs.shape)}, expected T > 0"
            )

    def __len__(self) -> int:
        return self.inputs.shape[0]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return the same batch with every tensor on ``device``; ``host`` stays where it is."""
        moved = self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))
        if moved.targets.device.type == "cpu":
            return replace(moved, host=None)
        return replace(moved, host=self if self.targets.device.type == "cpu" else self.host)

    def rows(self, which: slice | Tensor) -> Self:
        """Return some of the rows, a slice of them or their numbers, as a batch."""
        host = None if self.host is None else self.host.rows(which)
        return replace(self._map(lambda tensor: tensor[which]), host=host)

    def pin_memory(self) -> Self:
        """Return the same batch in page-locked memory, from which a copy to a GPU does not wait."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        changed: dict[str, Any] = {
            f.name: function(value) for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **changed)
