"""Checks of a batch's values on the CPU, before it is copied to a GPU, where a wrong value can only stop the process."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqmem.data.batch import Batch
from seqmem.data.masks import valid_steps
from seqmem.errors import UserError


def check_batch(batch: Batch, dtype: torch.dtype = torch.float32) -> None:
    """Refuse lengths and masks that do not fit the batch, and times or a rate that no layer can use, as layers do on the CPU.

    Args:
        batch: on the CPU; on another device nothing is checked.
        dtype: type of the inputs, in which different times must differ: they may be a feature.

    Raises:
        UserError: a rate that is not positive, a length that is not between 0 and T, a mask ``known`` of another shape than
            the targets, or a time that decreases within a row's valid steps, is not finite, or equals the one before it after
            rounding to ``dtype``; the message names the row.
    """
    if batch.inputs.device.type != "cpu":
        return
    if expected := expected_rate(batch.rate):
        raise UserError(f"rate: got {shown_rate(batch.rate)} in a batch, expected {expected}")
    if batch.lengths is not None:
        _check_lengths("lengths", batch.lengths, batch.inputs.shape[1])
    if batch.target_lengths is not None and batch.targets.dim() > 1:
        _check_lengths("target_lengths", batch.target_lengths, batch.targets.shape[1])
    if batch.known is not None and (batch.known.shape != batch.targets.shape or not batch.targets.is_floating_point()):
        raise UserError(
            f"known: got the shape {tuple(batch.known.shape)} in a batch with {batch.targets.dtype} targets of shape "
            f"{tuple(batch.targets.shape)}, expected that of targets that are values"
        )
    if batch.times is not None:
        _check_times(batch.times, batch.lengths, dtype)


def expected_rate(rate: Any) -> str:
    """Return what a rate is expected to be, or an empty string for a positive number of Python or NumPy."""
    if isinstance(rate, Tensor | np.ndarray):
        return "a positive number; float() converts one element"
    is_number = isinstance(rate, float | int | np.floating | np.integer) and not isinstance(rate, bool)
    return "" if is_number and 0 < rate < math.inf else "a positive number"


def shown_rate(rate: Any) -> str:
    """Return a refused rate for a message, or the type of a tensor or an array."""
    return f"<{type(rate).__name__}>" if isinstance(rate, Tensor | np.ndarray) else repr(rate)


def shown_time(time: Tensor) -> str:
    """Return a time () for a message, with the fewest digits that distinguish it from the other numbers of its type."""
    wide = time.float() if time.element_size() < 4 else time  # NumPy has no bfloat16
    return str(wide.detach().numpy()).removesuffix(".0")


def _check_lengths(name: str, lengths: Tensor, steps: int) -> None:
    lengths = lengths.to(torch.int64)  # a smaller type would wrap T, and torch does not compare unsigned ones
    wrong = (lengths < 0) | (lengths > steps)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise UserError(f"{name}: got {int(lengths[row])} in row {row} of a batch, expected between 0 and T={steps}")


def _check_times(times: Tensor, lengths: Tensor | None, dtype: torch.dtype) -> None:
    whole = torch.ones_like(times, dtype=torch.bool)
    valid = whole if lengths is None else valid_steps(lengths.to(torch.int64), times.shape[1])
    before = torch.cat([times[:, :1], times[:, :-1]], 1)
    if place := _first(valid & ~((times >= before) & times.isfinite())):
        row, step = place
        raise UserError(
            f"times: got {shown_time(times[place])} after {shown_time(before[place])} at step {step} of row {row} of a batch, "
            "expected finite times that do not decrease"
        )
    if place := _first(valid & (times > before) & (times.to(dtype) == before.to(dtype))):
        row, step = place
        raise UserError(
            f"times: got times of row {row} of a batch that are the same in {dtype} at steps {step - 1} and {step}; subtract "
            "the first time of each row, or use float64"
        )


def _first(wrong: Tensor) -> tuple[int, int] | None:
    if not bool(wrong.any()):
        return None
    row, step = wrong.nonzero()[0].tolist()
    return row, step
