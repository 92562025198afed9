"""torch's scan operator, which keeps an exported program short and lets it take any number of steps."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor


def scan(
    step: Callable[[list[Tensor], list[Tensor]], tuple[list[Tensor], Tensor]],
    initial: list[Tensor],
    sequences: list[Tensor],
) -> tuple[Sequence[Tensor], Tensor]:
    """Apply ``step`` along the first dimension of ``sequences``.

    Args:
        step: parts of the state and the items of one step -> the new parts, and the output.
        initial: parts of the state before the first step, no two of them the same tensor.
        sequences: (T, ...) each.

    Returns:
        The parts after the last step, and the outputs (T, ...).
    """
    from torch._higher_order_ops.scan import (
        scan as torch_scan,  # private to torch, so imported only where a program is exported
    )

    result: Any = torch_scan(step, initial, sequences)
    return result
