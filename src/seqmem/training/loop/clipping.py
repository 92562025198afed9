"""Gradient clipping, shared by both training loops."""

from collections.abc import Iterable
from typing import Literal

from torch import Tensor, nn


def clip_gradients(parameters: Iterable[Tensor], limit: float, algorithm: Literal["norm", "value"] = "norm") -> None:
    """Clip gradients in place.

    Args:
        parameters: whose gradients are clipped.
        limit: largest norm of the whole gradient, or largest absolute value of an element; 0 does not clip.
        algorithm: norm or value.
    """
    if limit == 0:
        return
    if algorithm == "norm":
        nn.utils.clip_grad_norm_(parameters, limit)
    else:
        nn.utils.clip_grad_value_(parameters, limit)
