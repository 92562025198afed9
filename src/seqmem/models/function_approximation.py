"""Function approximation: what is left of a signal in the last state of a memory that read it once (HiPPO, table 3)."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import pad

from seqmem.arguments import check, checked
from seqmem.cells import LSTM
from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.hippo import project, reconstruct
from seqmem.hippo.read_out import LSTM_MEMORY, ridge, with_one
from seqmem.models.base import SequenceModel
from seqmem.ops import canonical_discretization

# Steps that the LSTM takes at a time: its outputs would fill the memory at a million.
CHUNK = 10_000


class FunctionApproximation(SequenceModel):
    """Reads a signal sample by sample into N numbers and gives all of it back from these. Nothing is trained.

    legs: the projection of :func:`seqmem.hippo.project`, float64.
    lmu: the memory of a Legendre Memory Unit, in the same way.
    lstm: an LSTM of N units with its initial weights. A linear read-out from its last hidden state to the polynomial of N
        coefficients is fitted to the training signals by ridge regression: training the LSTM would take gradients through
        10^6 steps. (How the paper's was trained is not known here.)

    Args:
        spec: the data set it is for, one whose signals are to be given back.
        memory: what reads the signal.
        order: N, the numbers it may keep.
        theta: lmu's window in samples; None for the longest signal.
        discretization: how a sample becomes a step of legs or lmu; None for bilinear (legs) or zoh (lmu).

    Raises:
        UserError: a data set that wants something else, or settings that the memory does not have.
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
        if spec.task != "reconstruction" or spec.input_size != 1:
            raise UserError(
                f"model.network: function_approximation gives back a signal that it has read, and {spec.name} wants something "
                "else; dataset=white_noise asks for that"
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
        self.memory, self.order, self.discretization = memory, order, discretization
        self.theta = (theta or spec.max_length) if memory == "lmu" else None
        self.cell = LSTM(1, order).requires_grad_(False) if memory == "lstm" else None
        if self.cell is not None:
            self.register_buffer("read_out", torch.zeros(order + 1, order, dtype=torch.float64))

    @classmethod
    def check(cls, arguments: dict[str, Any]) -> None:
        """Check arguments as a config gives them."""
        check(cls, arguments, "model", skip=("spec",))

    @classmethod
    def label(cls, arguments: dict[str, Any]) -> str:
        """The memory's name."""
        return str(arguments["memory"])

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Fit the LSTM's read-out."""
        if self.cell is None:
            return
        hidden, wanted = [], []
        for batch in batches:
            hidden.append(self._hidden(batch.inputs[:, -LSTM_MEMORY:]))
            wanted.append(project(batch.targets[..., 0].double(), self.order))
        self.read_out.copy_(ridge(with_one(torch.cat(hidden)), torch.cat(wanted)))

    def forward(self, batch: Batch) -> Tensor:
        """Signals (B, T, 1) -> what is left of them (B, T, 1)."""
        signals = batch.inputs[..., 0].double()
        measure = "legs" if self.memory == "lstm" else self.memory
        if self.cell is None:
            coefficients = project(signals, self.order, measure, self.theta, discretization=self.discretization)
        else:
            coefficients = with_one(self._hidden(batch.inputs)) @ self.read_out
        made = reconstruct(coefficients, signals.shape[1], measure, self.theta, discretization=self.discretization)
        # A window shorter than the signal says nothing of what lies before it: zero, the mean.
        whole = pad(made, (signals.shape[1] - made.shape[-1], 0))
        return whole.to(batch.inputs.dtype)[..., None]

    def _hidden(self, inputs: Tensor) -> Tensor:
        """Inputs (B, T, 1) -> last hidden states (B, H) float64."""
        assert self.cell is not None
        state = self.cell.initial_state(inputs.shape[0])
        with torch.no_grad():
            for chunk in inputs.split(CHUNK, dim=1):
                _, state = self.cell(chunk, state)
        return state.hidden.double()
