"""torch's scan operator: exported programs stay short and accept any number of steps."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def exporting() -> bool:
    """Return whether torch.export traces this call; in torch 2.11 ``is_exporting`` also holds in torch.compile."""
    return torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()


def scan(
    step: Callable[[list[Tensor], list[Tensor]], tuple[list[Tensor], Tensor]],
    initial: list[Tensor],
    sequences: list[Tensor],
) -> tuple[Sequence[Tensor], Tensor]:
    """Apply ``step`` along the first dimension of ``sequences``.

    Args:
        step: maps the parts of the state and the items of one step to the new parts and the output.
        initial: parts of the state before the first step; no two may be the same tensor.
        sequences: (T, ...) each.

    Returns:
        The parts after the last step, and the outputs (T, ...).
    """
    # The operator is private to torch, so that it is imported only to export a program.
    from torch._higher_order_ops.scan import scan as torch_scan

    result: Any = torch_scan(step, initial, sequences)
    return result
