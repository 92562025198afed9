"""The two or more sides of a comparison: each runs the same training step, forward and backward, its own way."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks.opponents import jax_scan
from benchmarks.opponents.dense_legs import DenseLegS
from benchmarks.opponents.dense_timestamped import DenseTimestamped
from benchmarks.opponents.gathered_patches import GatheredPatches
from benchmarks.opponents.one_by_one import OneByOne
from benchmarks.opponents.products import BareProducts
from benchmarks.opponents.projection import project
from seqmem import cells
from seqmem.cells import HMLSTM, TLSI, LegS
from seqmem.models import IGLOO1D, LSTM_AE
from seqmem.ops import legs_function_approximation

LAYERS = 3  # of an HM-LSTM
SYMBOLS = 27  # that it reads, as from text8

Result = tuple[Tensor, list[Tensor]]
Side = Callable[[], Result | None]


@dataclass(frozen=True)
class Case:
    """A comparison: ``kind`` legs, tlsi, lstm, gru (forward and backward of a cell), hmlstm, igloo (a layer), lstm_ae (with its
    update), or projection.

    Attributes:
        kind: what runs.
        hidden_size: H (and N), N for a projection, or K for igloo.
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
        if self.kind == "igloo":
            answers = f"{patches(self.steps):,} patches of {self.hidden_size} filters for each of the last 10 steps"
            return f"igloo, {answers}, length {self.steps:,}, batch {self.batch_size}, {number}"
        if self.kind == "lstm_ae":
            return f"lstm_ae, hidden {self.hidden_size}, encoding 16, length {self.steps}, batch {self.batch_size}, {number}"
        if self.kind == "hmlstm":
            sizes = f"{LAYERS} layers of {self.hidden_size}"
            return f"hmlstm, {sizes}, {SYMBOLS} channels, length {self.steps:,}, batch {self.batch_size}, {number}"
        loss = "" if self.loss == "all" else ", loss on the last output"
        return f"{self.kind}, hidden {self.hidden_size}, length {self.steps:,}, batch {self.batch_size}, {number}{loss}"


def sides(case: Case) -> dict[str, Side]:
    """Every side that can run here by its name, ours first. A side returns outputs and gradients, or None if it has none."""
    return {name: build() for name, build in builders(case).items()}


def builders(case: Case) -> dict[str, Callable[[], Side]]:
    """What makes each side: with one of them alone a process holds nothing of the others'."""
    if case.kind == "projection":
        return _projections(case)
    if case.kind == "igloo":
        return _patches(case)
    if case.kind == "hmlstm":
        return _multiscale(case)
    if case.kind == "lstm_ae":
        return _autoencoders(case)
    torch.manual_seed(0)
    half = case.dtype == torch.bfloat16
    kind = torch.float32 if half else case.dtype
    make = cells.get(case.kind)
    cell = make(input_size=1 + make.timed, hidden_size=case.hidden_size).to(kind)
    inputs = torch.randn(case.batch_size, case.steps, 1, dtype=kind)
    if make.timed:
        inputs = torch.cat([torch.rand_like(inputs).cumsum(1), inputs], -1)
    cotangent = torch.randn(case.batch_size, case.steps, case.hidden_size, dtype=kind)
    if case.loss == "last":
        cotangent[:, :-1] = 0
    parameters = list(cell.parameters())

    def trained(forward: Callable[[], Tensor], autocast: bool = False) -> Side:
        def call() -> Result:
            with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
                outputs = forward()
            if case.loss == "last":
                gradients = torch.autograd.grad(outputs[:, -1], parameters, cotangent[:, -1])
            else:
                gradients = torch.autograd.grad(outputs, parameters, cotangent)
            return outputs.detach(), list(gradients)

        return call

    def compiled() -> Side:
        graph = torch.compile(cell)
        call = trained(lambda: graph(inputs)[0])
        call()
        return call

    def stepwise() -> Side:
        return trained(lambda: cell.stepwise_forward(inputs, cell.initial_state(len(inputs)), None, True)[0])

    def dense() -> Side:
        network = DenseLegS(cell, case.steps)
        return trained(lambda: network(inputs))

    def dense_timestamped() -> Side:
        network = DenseTimestamped(cell)
        return trained(lambda: network(inputs))

    def torch_nn() -> Side:
        twin = getattr(nn, case.kind.upper())(1, case.hidden_size, batch_first=True).to(kind)
        for name, parameter in cell.named_parameters():
            setattr(twin, f"{name}_l0", parameter)
        return trained(lambda: twin(inputs)[0])

    def products() -> Side:
        gates = {"legs": 2, "tlsi": 2, "lstm": 4, "gru": 3}[case.kind] * case.hidden_size
        bare = BareProducts(case.hidden_size, gates, case.batch_size, case.steps, case.dtype)

        def call() -> None:
            bare()

        return call

    found: dict[str, Callable[[], Side]] = {"seqmem": lambda: trained(lambda: cell(inputs)[0], half)}
    if half:
        found["seqmem, float32"] = lambda: trained(lambda: cell(inputs)[0])
    elif case.loss == "all":
        found["seqmem, torch.compile"] = compiled
        found["seqmem, step by step"] = stepwise
    if isinstance(cell, TLSI):
        found["original (dense)"] = dense_timestamped
    elif isinstance(cell, LegS):
        found["original (dense)" + ", float32" * half] = dense
    else:
        found[f"torch.nn.{case.kind.upper()}"] = torch_nn
    # At 512 it takes half a minute to compile.
    if case.kind in ("legs", "lstm") and case.dtype == torch.float32 and case.hidden_size <= 256 and jax_scan.available():
        found["JAX scan"] = lambda: jax_scan.trained(cell, inputs, cotangent)
    found["bare products"] = products
    return found


def _multiscale(case: Case) -> dict[str, Callable[[], Side]]:
    torch.manual_seed(0)
    stack = HMLSTM(SYMBOLS, case.hidden_size, LAYERS).to(case.dtype)
    lstm = nn.LSTM(SYMBOLS, case.hidden_size, LAYERS, batch_first=True).to(case.dtype)
    inputs = torch.randn(case.batch_size, case.steps, SYMBOLS, dtype=case.dtype)

    def trained(network: nn.Module, forward: Callable[[], Tensor]) -> Side:
        # No values: torch.nn.LSTM is another network, and in float32 a boundary near its threshold falls to either side of it
        # by rounding, after which two ways part. Tests compare them in float64.
        def call() -> None:
            torch.autograd.grad(forward().sum(), list(network.parameters()))

        return call

    return {
        "seqmem": lambda: trained(stack, lambda: stack(inputs)[0]),
        "seqmem, step by step": lambda: trained(
            stack, lambda: stack.stepwise_forward(inputs, stack.initial_state(case.batch_size), None, True)[0]
        ),
        "torch.nn.LSTM": lambda: trained(lstm, lambda: lstm(inputs)[0]),
    }


def _autoencoders(case: Case) -> dict[str, Callable[[], Side]]:
    torch.manual_seed(0)
    model = LSTM_AE(2, 16, [case.hidden_size]).to(case.dtype)
    inputs = torch.randn(case.batch_size, case.steps, 2, dtype=case.dtype)
    parameters = list(model.parameters())
    optimizer = torch.optim.Adam(parameters, lr=0.0)  # all of an update's work, and weights that sides can be compared with

    def trained(network: nn.Module, rows: Tensor) -> Side:
        def call() -> Result:
            optimizer.zero_grad()
            outputs = []
            for row in rows:
                outputs.append(network(row))
                (outputs[-1] - row).square().sum().backward()
                optimizer.step()
            return torch.cat(outputs).detach().view_as(inputs), [parameter.grad.clone() for parameter in parameters]

        return call

    return {
        "seqmem": lambda: trained(model, inputs[None]),
        "original (one sequence at a time)": lambda: trained(OneByOne(model), inputs),
    }


def patches(steps: int) -> int:
    """As many patches for their steps as the original's copy memory has: 6,200 for 10,000."""
    return steps * 62 // 100


def _patches(case: Case) -> dict[str, Callable[[], Side]]:
    torch.manual_seed(0)
    layer = IGLOO1D((case.steps, 1), patches(case.steps), case.hidden_size, return_sequences=True, nb_sequences=10, psy=0.1)
    layer.to(case.dtype)
    parameters = list(layer.parameters())
    inputs = torch.randn(case.batch_size, case.steps, 1, dtype=case.dtype)
    cotangent = torch.randn(case.batch_size, 10, layer.output_size, dtype=case.dtype)

    def trained(network: nn.Module) -> Side:
        def call() -> Result:
            outputs = network(inputs)
            return outputs.detach(), list(torch.autograd.grad(outputs, parameters, cotangent))

        return call

    return {"seqmem": lambda: trained(layer), "all patches gathered": lambda: trained(GatheredPatches(layer))}


def _projections(case: Case) -> dict[str, Callable[[], Side]]:
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

    return {"seqmem": lambda: ours, "original (sequential kernel, one thread)": lambda: theirs}
