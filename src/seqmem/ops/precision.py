"""Computations that keep their precision under autocast, or are in float32 for tensors in half precision."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn.functional import linear

_AUTOCAST_DEVICES = {kind for kind in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(kind)}
"""Looked up once: torch.compile of torch 2.11 cannot trace the look-up."""


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return a context without autocast; it does nothing if autocast is off already, as in an exported program."""
    if not autocast_active(device):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def autocast_active(device: torch.device) -> bool:
    """Return whether autocast is enabled for a device; the meta device, for one, has none."""
    return device.type in _AUTOCAST_DEVICES and torch.is_autocast_enabled(device.type)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return a tensor in float32 if its type is float16 or bfloat16, else unchanged."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def mixed_linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute x W^T + b in the type of the weights, or as autocast requests; the results are at least in float32.

    This keeps what follows, such as the states of a scan, in float32 under autocast.
    """
    return at_least_float32(linear(inputs.to(weight.dtype), weight, bias))


def scan_types(*inputs: Tensor, initial: Tensor | None) -> tuple[torch.dtype, torch.dtype]:
    """Return the types of a scan's outputs and of its states.

    States have the widest type of the inputs and the initial state, at least float32. The outputs have the same type, but half
    precision for inputs in half precision with a state in float32.
    """
    wide = widest(*inputs, initial)
    dtype = inputs[0].dtype
    for tensor in inputs[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype if wide == torch.float32 else wide, wide


def widest(*tensors: Tensor | None) -> torch.dtype:
    """Return the widest type of tensors, at least float32; None is left out."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = dtype if tensor is None else torch.promote_types(dtype, tensor.dtype)
    return dtype
