"""Masks of padding: the valid steps of a padded batch, and the targets that count."""

from collections.abc import Sequence

import torch
from torch import Tensor

from seqmem.data.batch import IGNORE_INDEX, Batch
from seqmem.data.transfer import copied
from seqmem.errors import UserError


def valid_steps(lengths: Tensor, steps: int) -> Tensor:
    """Return the padding mask of a batch.

    Args:
        lengths: (B,) valid leading steps of each row.
        steps: T.

    Returns:
        (B, T) bool, true at valid steps, on the device of ``lengths``.
    """
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def masked(values: Tensor, lengths: Tensor | None) -> Tensor:
    """Return values (B, T, ...) with zeros in the padding.

    Padding may hold NaN, and 0 * NaN is NaN in backward, so padded values are replaced and not multiplied.

    Args:
        values: (B, T, ...).
        lengths: (B,) valid leading steps of each row; None if all T are valid.
    """
    if lengths is None:
        return values
    valid = valid_steps(lengths, values.shape[1])
    return values.where(valid.view(*valid.shape, *[1] * (values.dim() - 2)), 0)


def masked_mean(values: Tensor, valid: Tensor, counts: Tensor) -> Tensor:
    """Average values over the valid steps of each row, with sums in at least float32: those of float16 overflow.

    Args:
        values: (B, T, ...).
        valid: bool (B, T, ...) that broadcasts to the values.
        counts: (B, ...), the divisors of the sums.

    Returns:
        (B, ...) in the type of the values.
    """
    wide = torch.promote_types(values.dtype, torch.float32)
    return (values.where(valid, 0).sum(1, dtype=wide) / counts).to(values.dtype)


def reversed_steps(values: Tensor, lengths: Tensor | None) -> Tensor:
    """Reverse the valid steps of values (B, T, C); padding keeps its position.

    Args:
        values: (B, T, C).
        lengths: (B,) valid leading steps of each row; None if all T are valid.
    """
    if lengths is None:
        return values.flip(1)
    steps = torch.arange(values.shape[1], device=values.device)
    source = torch.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
    return values.gather(1, source[..., None].expand_as(values))


def last_steps(outputs: Tensor, count: int | None, lengths: Tensor | None) -> Tensor:
    """Select the outputs that a data set's ``output_steps`` defines.

    Args:
        outputs: (B, T, H).
        count: 0 for each row's last valid step, k for its last k valid steps, None for all steps. In a row with fewer than k
            valid steps, the outputs before its first step are 0; :func:`counted_targets` leaves their targets out.
        lengths: (B,) valid steps of each row; None if all T are valid.

    Returns:
        (B, H) if ``count`` is 0, (B, count, H) if it is positive, or (B, T, H) if it is None.

    Raises:
        UserError: T is less than ``count``.
    """
    if count is None:
        return outputs
    check_steps(outputs, count)
    if lengths is None:
        return outputs[:, -1] if count == 0 else outputs[:, -count:]
    steps = lengths[:, None] - max(count, 1) + torch.arange(max(count, 1), device=lengths.device)
    taken = outputs.gather(1, steps.clamp(min=0)[..., None].expand(-1, -1, outputs.shape[-1]))
    taken = taken.where((steps >= 0)[..., None], 0)
    return taken.squeeze(1) if count == 0 else taken


def check_steps(sequences: Tensor, count: int | None) -> None:
    """Refuse sequences (B, T, ...) that are shorter than the number of last steps with an output.

    Raises:
        UserError: T is less than ``count``.
    """
    if count and not torch.compiler.is_exporting() and sequences.shape[1] < count:
        raise UserError(
            f"a batch of sequences that are too short: got T={sequences.shape[1]}, expected at least {count} steps, one for "
            "each of the last outputs (output_steps of the data set)"
        )


def counted_targets(batch: Batch, shape: Sequence[int], output_steps: int | None, classes: bool) -> Tensor | None:
    """Return the targets that count in loss, metrics and weight: the one mask of all tasks.

    A target counts if its step is a valid one and its class is not ``IGNORE_INDEX``. Of one output for each sequence, those of
    sequences without a valid step do not count. Of outputs at the last k steps, those before a row's first step do not count.
    Where single values are missing (``batch.known``), the mask is one of values.

    Args:
        batch: B sequences.
        shape: of the targets without the channels of a value: (B,) or (B, T').
        output_steps: of the data set's spec.
        classes: the targets are class indices.

    Returns:
        bool of that shape, or of the targets' shape if some are missing; None if all targets count.
    """
    valid = valid_targets(batch, shape, output_steps)
    if batch.known is not None:
        return batch.known if valid is None else batch.known & valid[..., None]
    if not (classes and batch.ignores):
        return valid
    known = batch.targets != IGNORE_INDEX
    return known if valid is None else valid & known


def counted_index(batch: Batch, shape: Sequence[int], output_steps: int | None, classes: bool) -> Tensor | None:
    """Return the places of the targets that count among all of ``shape``, row by row, on the batch's device.

    Where some are missing, they are places among the values of the targets.

    They are found in ``batch.host``, so that nothing waits for the device. The arguments are those of :func:`counted_targets`.

    Returns:
        (n,) int64; None if all targets count.
    """
    found = batch.__dict__.setdefault("_counted_index", {})
    key = (tuple(shape), output_steps, classes)
    if key not in found:
        counted = counted_targets(batch.on_host, shape, output_steps, classes)
        places = None if counted is None else counted.flatten().nonzero()[:, 0]
        found[key] = None if places is None else copied(places, batch.targets.device)
    return found[key]


def valid_targets(batch: Batch, shape: Sequence[int], output_steps: int | None) -> Tensor | None:
    """Return which targets belong to a valid step, bool of ``shape``; None if all do.

    The arguments are those of :func:`counted_targets`.
    """
    lengths = batch.output_lengths
    if lengths is None or batch.places is not None:  # padding at places has IGNORE_INDEX
        return None
    if len(shape) == 1:
        return lengths > 0 if batch.has_empty_rows else None
    valid = valid_steps(lengths, shape[1])
    at_the_end = output_steps is not None and batch.target_lengths is None
    return valid.flip(1) if at_the_end else valid
