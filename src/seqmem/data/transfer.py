"""Copies to a GPU that the host does not wait for."""

import torch
from torch import Tensor


def copied(values: Tensor, device: torch.device) -> Tensor:
    """Return a CPU tensor on a device.

    On a GPU it is copied from pinned memory, so that the host does not wait. Fake tensors and a CUDA graph that the caller
    captures take an ordinary copy; the capture refuses it with an error.

    Args:
        values: any shape and type; returned as it is if it is on the device already.
        device: of the result.
    """
    unpinned = values.is_cuda or hasattr(values, "fake_mode")
    if device.type != "cuda" or unpinned or (torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()):
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
