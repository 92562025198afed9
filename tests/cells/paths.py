"""The two ways to compute a cell's whole sequence, whichever :meth:`forward` would choose."""

from typing import Any

from torch import Tensor

from seqmem.cells import Recurrence


def fused(cell: Recurrence, inputs: Tensor, state: Any, lengths: Tensor | None, fresh: bool) -> tuple[Tensor, Any]:
    """The operator's implementation, which the table must offer for these inputs."""
    run = cell.choose(inputs).run
    assert run is not None, cell.fallback_reason(inputs)
    return cell.fused_forward(run, inputs, state, lengths, fresh)


def stepwise(cell: Recurrence, inputs: Tensor, state: Any, lengths: Tensor | None, fresh: bool) -> tuple[Tensor, Any]:
    """The time loop."""
    return cell.stepwise_forward(inputs, state, lengths, fresh)
