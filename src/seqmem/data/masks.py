"""Padding mask: the valid steps of a padded batch."""

import torch
from torch import Tensor


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
