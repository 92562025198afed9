"""States as vectors, and inputs by their lag before the last step."""

from typing import Any

import torch
from torch import Tensor

from seqmem.errors import UserError
from seqmem.ops.lengths import is_integer
from seqmem.ops.states import parts


def flat_state(state: Any) -> Tensor:
    """Flatten a carried state to vectors (B, d), part by part.

    A complex number counts as two numbers. Parts of integers, such as the number of past steps, are left out.

    Args:
        state: tensors whose first dimension is B, in tuples and lists of any depth.

    Raises:
        UserError: it has no floating-point or complex part.
    """
    kept = [part for part in parts(state) if part.is_floating_point() or part.is_complex()]
    if not kept:
        raise UserError("got a state without real or complex numbers, expected that of a recurrent cell or a causal layer")
    real = [torch.view_as_real(part.resolve_conj()) if part.is_complex() else part for part in kept]
    return torch.cat([part.flatten(1) if part.dim() > 1 else part[:, None] for part in real], 1)


def inputs_at_lags(inputs: Tensor, lags: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Return the inputs at some lags before each row's last valid step.

    Args:
        inputs: (B, T, ...).
        lags: (L,) of any integer type; 0 is the last valid step.
        lengths: (B,) valid steps of each row; None if all T are valid.

    Returns:
        (B, L, ...).

    Raises:
        UserError: lags are not integers, one is negative, or a row is too short for the largest one.
    """
    rows, steps = inputs.shape[:2]
    ends = torch.full((rows,), steps) if lengths is None else lengths.cpu().to(torch.int64)
    if not is_integer(lags):
        raise UserError(f"lags: got {lags.dtype}, expected torch.int64")
    lags = lags.to(torch.int64)
    if len(lags) and int(lags.min()) < 0:
        raise UserError(f"lags: got {int(lags.min())}, expected at least 0, the last valid step")
    if rows and len(lags) and int(lags.max()) >= int(ends.min()):
        raise UserError(f"lags: got {int(lags.max())}, expected at most {int(ends.min()) - 1} for the shortest row")
    places = (ends[:, None] - 1 - lags.cpu()).to(inputs.device)
    return inputs[torch.arange(rows, device=inputs.device)[:, None], places]
