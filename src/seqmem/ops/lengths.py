"""Checks of the lengths of padded rows, and of other values that may be on a GPU."""

from typing import Any

import torch
from torch import Tensor

from seqmem.errors import UserError
from seqmem.ops import transforms
from seqmem.ops.export import exporting


def checked_lengths(label: str, lengths: Any, batch_size: int, steps: int, device: torch.device) -> Tensor | None:
    """Return lengths as (B,) int64 on a device.

    Args:
        label: name of the layer in messages.
        lengths: (B,) valid steps of each row, of any integer type; None if all are valid.
        batch_size: B.
        steps: T.
        device: of the inputs.

    Raises:
        UserError: a different type or shape, or a length that is not between 0 and T; see :func:`any_wrong` for a GPU.
    """
    if lengths is None:
        return None
    if not isinstance(lengths, Tensor):
        raise UserError(f"{label}: got lengths of type {type(lengths).__name__}, expected a tensor ({batch_size},) of int64")
    if lengths.shape != (batch_size,):
        raise UserError(f"{label}: got lengths of shape {tuple(lengths.shape)}, expected ({batch_size},)")
    if not is_integer(lengths):
        raise UserError(f"{label}: got lengths of {lengths.dtype}, expected torch.int64")
    expected = f"expected each between 0 and T={steps}"
    lengths = lengths.to(torch.int64)  # a smaller type would wrap T, and torch does not compare unsigned ones
    if not exporting() and any_wrong((lengths < 0) | (lengths > steps), f"{label}: got a wrong length, {expected}"):
        values = transforms.values(lengths)
        wrong = values[(values < 0) | (values > steps)].tolist()
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(f"{label}: got lengths {wrong[:3]}{more}, {expected}")
    return lengths.to(device, non_blocking=True)


def any_wrong(wrong: Tensor, message: str) -> bool:
    """Return whether a value is wrong.

    For a tensor on a GPU let the GPU stop the process instead, without waiting for it. In torch.compile leave an assertion in
    the graph, which a branch on the value would break; on the CPU it raises RuntimeError with the message.

    Args:
        wrong: bool of any shape; also within transforms of torch.func.
        message: what the GPU prints, or the assertion says.

    Returns:
        False for tensors on a GPU or the meta device, and in torch.compile.
    """
    found = transforms.values(wrong)
    if found.is_meta:
        return False
    if found.is_cuda or torch.compiler.is_compiling():
        torch._assert_async(~found.any(), message)
        return False
    return bool(found.any())


def is_integer(tensor: Tensor) -> bool:
    """Return whether a tensor holds integers."""
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
