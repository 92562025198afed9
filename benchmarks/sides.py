"""The two or more sides of a comparison: each runs the same training step, forward and backward, its own way."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks.opponents import jax_scan
from benchmarks.opponents.dense_legs import DenseLegS
from benchmarks.opponents.products import BareProducts
from benchmarks.opponents.projection import project
from seqmem import cells
from seqmem.cells import LegS, Recurrence
from seqmem.ops import legs_function_approximation

Result = tuple[Tensor, list[Tensor]]


@dataclass(frozen=True)
class Case:
    """A comparison: ``kind`` legs, lstm or gru (forward and backward of a cell), or projection.

    Attributes:
        kind: what runs.
        hidden_size: H (and N), or N for a projection.
        steps: T.
        batch_size: B.
        dtype: of weights and inputs; bfloat16 means float32 under autocast to it.
        loss: whether gradients flow from every step's output or, as in classification, from the last one alone.
    """

    kind: str
    hidden_size: int
    steps: int
    batch_size: int = 100
    dtype: torch.dtype = torch.float32
    loss: Literal["all", "last"] = "all"

    @property
    def title(self) -> str:
        """How the table calls it."""
        number = str(self.dtype).removeprefix("torch.")
        if self.kind == "projection":
            signals = "one signal, one thread" if self.batch_size == 1 else f"{self.batch_size} signals, all threads"
            return f"projection, order {self.hidden_size}, {self.steps:,} steps, {number}, {signals}"
        loss = "" if self.loss == "all" else ", loss on the last output"
        return f"{self.kind}, hidden {self.hidden_size}, length {self.steps:,}, batch {self.batch_size}, {number}{loss}"


def sides(case: Case) -> dict[str, Callable[[], Result | None]]:
    """Every side that can run here by its name, ours first. A side returns outputs and gradients, or None if it has none."""
    if case.kind == "projection":
        return _projections(case)
    torch.manual_seed(0)
    half = case.dtype == torch.bfloat16
    kind = torch.float32 if half else case.dtype
    cell = cells.get(case.kind)(input_size=1, hidden_size=case.hidden_size).to(kind)
    inputs = torch.randn(case.batch_size, case.steps, 1, dtype=kind)
    cotangent = torch.randn(case.batch_size, case.steps, case.hidden_size, dtype=kind)
    if case.loss == "last":
        cotangent[:, :-1] = 0
    parameters = list(cell.parameters())

    def trained(forward: Callable[[], Tensor], autocast: bool = False) -> Callable[[], Result]:
        def call() -> Result:
            with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
                outputs = forward()
            if case.loss == "last":
                gradients = torch.autograd.grad(outputs[:, -1], parameters, cotangent[:, -1])
            else:
                gradients = torch.autograd.grad(outputs, parameters, cotangent)
            return outputs.detach(), list(gradients)

        return call

    found: dict[str, Callable[[], Result | None]] = {"seqmem": trained(lambda: cell(inputs)[0], half)}
    if half:
        found["seqmem, float32"] = trained(lambda: cell(inputs)[0])
    else:
        compiled = torch.compile(cell)
        found["seqmem, torch.compile"] = trained(lambda: compiled(inputs)[0])
        found["seqmem, torch.compile"]()  # compiles
        found["seqmem, step by step"] = trained(lambda: _step_by_step(cell, inputs))
    if isinstance(cell, LegS):
        found["original (dense)" + ", float32" * half] = _dense(cell, inputs, trained)
    else:
        twin = getattr(nn, case.kind.upper())(1, case.hidden_size, batch_first=True).to(kind)
        for name, parameter in cell.named_parameters():
            setattr(twin, f"{name}_l0", parameter)
        found[f"torch.nn.{case.kind.upper()}"] = trained(lambda: twin(inputs)[0])
    if case.kind != "gru" and case.dtype == torch.float32 and jax_scan.available():
        found["JAX scan"] = jax_scan.trained(cell, inputs, cotangent)
    gates = {"legs": 2, "lstm": 4, "gru": 3}[case.kind] * case.hidden_size
    products = BareProducts(case.hidden_size, gates, case.batch_size, case.steps, case.dtype)

    def bare() -> None:
        products()

    found["bare products"] = bare
    return found


def _step_by_step(cell: Recurrence, inputs: Tensor) -> Tensor:
    return cell.run_stepwise(inputs, cell.initial_state(len(inputs)), None, True)[0]


def _dense(cell: LegS, inputs: Tensor, trained: Callable) -> Callable[[], Result]:
    made: list[DenseLegS] = []

    def forward() -> Tensor:
        if not made:
            made.append(DenseLegS(cell, inputs.shape[1]))
        return made[0](inputs)

    return trained(forward)


def _projections(case: Case) -> dict[str, Callable[[], Result | None]]:
    torch.manual_seed(0)
    signals = torch.randn(case.batch_size, case.steps, dtype=torch.float64).cumsum(1).div(1000).to(case.dtype)

    def ours() -> Result:
        threads = torch.get_num_threads()
        torch.set_num_threads(1 if case.batch_size == 1 else threads)
        try:
            return legs_function_approximation(signals, case.hidden_size), []
        finally:
            torch.set_num_threads(threads)

    def theirs() -> Result:
        return torch.stack([project(signal, case.hidden_size) for signal in signals]), []

    return {"seqmem": ours, "original (sequential kernel, one thread)": theirs}
