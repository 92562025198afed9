"""Copies to a GPU that the host does not wait for."""

import torch
from torch import Tensor


def copied(values: Tensor, device: torch.device) -> Tensor:
    """Return a CPU tensor on a device.

    On a GPU it is copied from pinned memory, so that the host does not wait. Tracing with fake tensors and a CUDA graph that
    the caller captures take an ordinary copy; the capture refuses it with an error.

    Args:
        values: any shape and type; returned as it is if it is on the device already.
        device: of the result.
    """
    if device.type != "cuda" or values.is_cuda or _is_traced(values) or _is_captured():
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def _is_traced(values: Tensor) -> bool:
    """Tell whether a tensor is fake, or will be once an operator has run on it."""
    return any(type(each) is not Tensor for each in (values.detach(), torch.empty(0, device="cpu")))


def _is_captured() -> bool:
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
