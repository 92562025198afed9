"""Function approximation (HiPPO, table 3): reconstruct a signal from the last state of a memory."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from seqmem.arguments import check, checked
from seqmem.cells import LSTM
from seqmem.data import Batch, DataSpec
from seqmem.errors import UserError
from seqmem.hippo import Memory, project
from seqmem.hippo.approximation import LSTM_MEMORY, apply_read_out, approximate, fit_read_out, last_hidden
from seqmem.models.base import SequenceModel
from seqmem.ops import canonical_discretization
from seqmem.tasks import task_for


class FunctionApproximation(SequenceModel):
    """Reads a signal sample by sample into N numbers and reconstructs it from these, without training.

    legs: the projection of :func:`seqmem.hippo.project`, float64.
    lmu: the memory of a Legendre Memory Unit, computed likewise.
    lstm: an LSTM of N units with its initial weights. A linear read-out from its last hidden state to N polynomial coefficients
        is fitted to the training signals, see :mod:`seqmem.hippo.approximation`.

    Args:
        spec: of a data set with the task reconstruction and one channel.
        memory: the memory that reads the signal.
        order: N, the numbers in which the signal is kept.
        theta: lmu's window in samples; None for the longest signal.
        discretization: of legs or lmu; None for bilinear (legs) or zoh (lmu).

    Raises:
        UserError: a data set with another task or several channels, or a setting that the memory does not have.
    """

    name = "function_approximation"
    read_out: Tensor

    @checked
    def __init__(
        self,
        spec: DataSpec,
        memory: Literal["legs", "lmu", "lstm"] = "legs",
        order: PositiveInt = 256,
        theta: PositiveFloat | None = None,
        discretization: str | float | None = None,
    ):
        super().__init__()
        if not task_for(spec).reconstructs or spec.input_size != 1:
            raise UserError(
                f"model.network: function_approximation reconstructs signals of one channel, but {spec.name} has the task "
                f"{spec.task} and {spec.input_size} channels; dataset=white_noise fits"
            )
        if theta is not None and memory != "lmu":
            raise UserError(f"model.theta: got {theta}, expected null, since {memory} has none")
        if discretization is not None and memory == "lstm":
            raise UserError(f"model.discretization: got {discretization}, expected null, since lstm has none")
        if discretization is not None:
            try:
                canonical_discretization(discretization)
            except UserError as error:
                raise UserError(f"model.discretization: {error}") from None
        if memory == "lmu":
            self.memory = Memory(order, "lmu", theta or spec.max_length, discretization)
        else:
            self.memory = Memory(order, "legs", None, discretization)
        self.cell = LSTM(1, order).requires_grad_(False) if memory == "lstm" else None
        if self.cell is not None:
            self.register_buffer("read_out", torch.zeros(order + 1, order, dtype=torch.float64))

    @classmethod
    def check(cls, arguments: dict[str, Any]) -> None:
        """Check arguments as a config gives them."""
        check(cls, arguments, "model", skip=("spec",))

    @classmethod
    def label(cls, arguments: dict[str, Any]) -> str:
        """Name of the model in tables: that of its memory."""
        return str(arguments["memory"])

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Fit the LSTM's read-out to the training batches."""
        if self.cell is None:
            return
        hidden, coefficients = [], []
        for batch in batches:
            for rows, length in _by_length(batch):
                inputs, targets = batch.inputs[rows, :length, 0], batch.targets[rows, :length, 0]
                hidden.append(last_hidden(self.cell, inputs[:, -LSTM_MEMORY:]))
                coefficients.append(project(targets.double(), self.memory.order))
        self.read_out.copy_(fit_read_out(torch.cat(hidden), torch.cat(coefficients)))

    def forward(self, batch: Batch) -> Tensor:
        """Reconstruct signals (B, T, 1) from the numbers that they were read into: (B, T, 1), zero in the padding."""
        outputs = torch.zeros_like(batch.inputs)
        for rows, length in _by_length(batch):
            outputs[rows, :length, 0] = self._reconstructed(batch.inputs[rows, :length, 0])
        return outputs

    def _reconstructed(self, signals: Tensor) -> Tensor:
        """Reconstruct signals (B, T) without padding."""
        if self.cell is None:
            coefficients = project(signals.double(), self.memory.order, **self.memory.settings)
        else:
            coefficients = apply_read_out(last_hidden(self.cell, signals), self.read_out)
        return approximate(coefficients, signals.shape[1], self.memory).to(signals.dtype)


def _by_length(batch: Batch) -> Iterator[tuple[Tensor | slice, int]]:
    """Yield the rows of each length of a batch, with this length."""
    if batch.lengths is None:
        yield slice(None), batch.inputs.shape[1]
        return
    lengths = batch.on_host.lengths
    assert lengths is not None
    for length in lengths.unique().tolist():
        if length > 0:
            yield (lengths == length).nonzero()[:, 0].to(batch.inputs.device), length
