"""Padded batches of a user's series, prepared once in memory, or as they are read from a file."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqmem.data.masks import valid_steps
from seqmem.data.preparation import Preparation
from seqmem.data.segments import Segments
from seqmem.errors import UserError
from seqmem.io.collection import Collection


class Padded(NamedTuple):
    """Some sequences as padded tensors.

    Attributes:
        inputs: (B, T, C').
        channels: (B, T, C) of the horizon later; None if they were not requested.
        known: (B, T, C) bool, false for a channel that is missing in the files; None if none is, or without channels.
        lengths: (B,); None if all are equally long.
        times: (B, T); None without.
    """

    inputs: Tensor
    channels: Tensor | None
    known: Tensor | None
    lengths: Tensor | None
    times: Tensor | None


class PreparedSeries:
    """Inputs, lengths and times of segments of series.

    Args:
        collection: the series.
        preparation: of their values.
        segments: which steps of them, one segment for each sequence.
        time_scale: factor of the times; None for batches without times.

    Raises:
        UserError: a value cannot be prepared, or times are equal in float32.
    """

    def __init__(self, collection: Collection, preparation: Preparation, segments: Segments, time_scale: float | None):
        self._collection: Collection | None = collection
        self._preparation, self._segments = preparation, segments
        self._time_scale = time_scale
        self._lengths = torch.from_numpy(segments.lengths)
        self._equal = bool((self._lengths == self._lengths[0]).all())
        self._flat: tuple[Tensor, Tensor | None, Tensor | None] | None = None
        if collection.in_memory:
            self._flat = self._read(np.arange(len(segments)))
            self._starts = self._lengths.cumsum(0) - self._lengths
            self._collection = None  # its values may be freed

    def __len__(self) -> int:
        return len(self._segments)

    def batch(self, indices: Tensor, horizon: int = 0, channels: bool = True) -> Padded:
        """Return some sequences as padded tensors.

        Args:
            indices: (B,) of segments.
            horizon: steps at the end of a segment that are not inputs.
            channels: whether the channels are returned, too.
        """
        lengths = self._lengths[indices]
        if self._flat is None:
            flat, times, known = self._read(indices.numpy())
            starts = lengths.cumsum(0) - lengths
        else:
            (flat, times, known), starts = self._flat, self._starts[indices]
        valid = lengths - horizon
        steps = torch.arange(int(valid.max()))
        place = starts[:, None] + torch.minimum(steps, valid[:, None] - 1)
        mask = valid_steps(valid, len(steps))[..., None]
        inputs = flat[place].where(mask, 0.0)
        later = flat[place + horizon, : len(self._preparation.channels)].where(mask, 0.0) if channels else None
        given = None if known is None or not channels else known[place + horizon]
        return Padded(inputs, later, given, None if self._equal else valid, None if times is None else times[place])

    def _read(self, indices: np.ndarray) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return of segments one after the other: inputs (N, C'), times (N,), and which values (N, C) are not missing."""
        assert self._collection is not None
        own = [getattr(self._segments, name)[indices] for name in ("series", "begins", "lengths")]
        first = self._collection.starts[own[0]] + own[1]
        rows = [slice(start, start + length) for start, length in zip(first.tolist(), own[2].tolist(), strict=True)]
        values = np.concatenate([self._collection.values[row] for row in rows])
        missing = np.isnan(values)
        known = torch.from_numpy(~missing) if missing.any() else None
        before = self._before(own[1], first, missing[np.cumsum(own[2]) - own[2]])
        inputs = torch.from_numpy(
            self._preparation.inputs(values, own[2], before, lambda k, step: self._place(own[0][k], own[1][k] + step))
        )
        if self._time_scale is None or self._collection.times is None:
            return inputs, None, known
        times = [self._collection.times[row] for row in rows]
        relative = [(each - each[0]) * self._time_scale for each in times]
        return inputs, _rounded(relative, [self._collection.names[series] for series in own[0].tolist()]), known

    def _place(self, series: int, step: int) -> str:
        assert self._collection is not None
        return f"{self._collection.path}, series {self._collection.names[series]!r}, step {step}"

    def _before(self, begins: np.ndarray, first: np.ndarray, missing: np.ndarray) -> np.ndarray | None:
        """Return the last earlier values (m, C) of the series of m segments, where those at the beginning are missing.

        Args:
            begins: (m,) first step of each segment.
            first: (m,) its row.
            missing: (m, C) whether the values of this row are missing.
        """
        wanted = np.flatnonzero(missing.any(1) & (begins > 0))
        if not len(wanted) or self._preparation.missing == "mean":
            return None
        assert self._collection is not None
        found = np.full(missing.shape, np.nan)
        for row in wanted.tolist():
            stop, origin, size = int(first[row]), int(first[row] - begins[row]), 64
            while stop > origin and np.isnan(found[row][missing[row]]).any():
                start = max(origin, stop - size)
                values = np.asarray(self._collection.values[start:stop], np.float64)
                latest = len(values) - 1 - (~np.isnan(values))[::-1].argmax(0)  # the last row if there is none, a NaN
                found[row] = np.where(np.isnan(found[row]), values[latest, np.arange(values.shape[1])], found[row])
                stop, size = start, 2 * size
        return found


def _rounded(times: list[np.ndarray], names: list[str]) -> Tensor:
    """Return times in float32, in which different ones must differ."""
    for each, name in zip(times, names, strict=True):
        equal = np.diff(each.astype(np.float32)) <= 0
        if equal.any():
            step = int(equal.argmax())
            raise UserError(
                f"times of series {name!r}: got {float(each[step])!r} and {float(each[step + 1])!r} at steps {step} and "
                f"{step + 1}, which are equal in float32; cut the series into shorter ones, or give dataset.timestamp=false"
            )
    return torch.from_numpy(np.concatenate(times).astype(np.float32))
