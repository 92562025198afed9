"""The padding mask: which steps of a padded batch are valid."""

import torch
from torch import Tensor


def valid_steps(lengths: Tensor, steps: int) -> Tensor:
    """Return (B, T) bool, true at the first ``lengths`` (B,) of ``steps`` T steps."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def masked(values: Tensor, lengths: Tensor | None) -> Tensor:
    """Return values (B, T, ...) with zeros in the padding.

    Padding may hold NaN, and 0 * NaN is NaN in backward, so padded values are replaced and not multiplied.

    Args:
        values: (B, T, ...).
        lengths: (B,) valid steps of each row; None if all T are valid.
    """
    if lengths is None:
        return values
    valid = valid_steps(lengths, values.shape[1])
    return values.where(valid.view(*valid.shape, *[1] * (values.dim() - 2)), 0)
