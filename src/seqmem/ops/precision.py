"""Computations that keep their precision under autocast, or are in float32 for tensors in half precision."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return a context without autocast; it does nothing if autocast is off already, as in an exported program."""
    if not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return a tensor in float32 if its type is float16 or bfloat16, else unchanged."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
