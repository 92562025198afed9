"""Cases of the benchmark, and the implementations ("sides") that each compares on the same training step."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks.baselines import jax_scan, jax_selective_scan
from benchmarks.baselines.dense_legs import DenseLegS
from benchmarks.baselines.dense_timestamped import DenseTimestamped
from benchmarks.baselines.fft_s4d import FFTS4D
from benchmarks.baselines.gathered_patches import GatheredPatches
from benchmarks.baselines.matrix_products import MatrixProducts
from benchmarks.baselines.projection import project
from benchmarks.baselines.single_sequence_ae import SingleSequenceAE
from seqmem import cells
from seqmem.cells import HMLSTM, TLSI, LegS
from seqmem.data import Batch, DataSpec
from seqmem.models import IGLOO1D, LSTM_AE, StackNetwork
from seqmem.ops import implementations, legs_function_approximation
from seqmem.ops.diagonal_scan import diagonal_scan_parallel, diagonal_scan_reference
from seqmem.ops.selective_scan import selective_scan_reference
from seqmem.ops.slstm import slstm_reference

HMLSTM_LAYERS = 3
HMLSTM_CHANNELS = 27  # symbols of text8

S4D_BLOCKS = 4
SLSTM_HEADS = 4
SELECTIVE_STATES = 16  # of a channel, as in the paper

Result = tuple[Tensor, list[Tensor]]
"""Outputs and gradients."""

Side = Callable[[], Result | None]
"""A training step, forward and backward; it returns None if its values cannot be compared."""


@dataclass(frozen=True)
class Case:
    """A comparison of implementations on one task and size.

    Attributes:
        kind: legs, tlsi, lstm, gru or rnn (forward and backward of a cell), hmlstm, igloo (a layer), s4d (a network),
            selective_scan, diagonal_scan or slstm (the operator), lstm_ae (with the weight update), or projection.
        hidden_size: H (and N); N for a projection and a diagonal scan, K for igloo, D for a selective scan.
        steps: T.
        batch_size: B.
        dtype: type of weights and inputs; bfloat16 means float32 under autocast to bfloat16.
        loss: whether gradients flow from the outputs of all steps or, as in classification, of the last step.
        flush: denormal numbers are flushed to zero on all threads (``torch.set_flush_denormal``), as seqmem's operators do
            without it. The case is measured in a process of its own.
        pairs: of a diagonal scan: complex numbers, as pairs of ``dtype``.
        constant: of a diagonal scan: the same factors at each step.
    """

    kind: str
    hidden_size: int
    steps: int
    batch_size: int = 100
    dtype: torch.dtype = torch.float32
    loss: Literal["all", "last"] = "all"
    flush: bool = False
    pairs: bool = False
    constant: bool = False

    @property
    def title(self) -> str:
        """Name of the case in tables."""
        dtype = str(self.dtype).removeprefix("torch.")
        if self.kind == "projection":
            signals = "one signal, one thread" if self.batch_size == 1 else f"{self.batch_size} signals, all threads"
            return f"projection, order {self.hidden_size}, {self.steps:,} steps, {dtype}, {signals}"
        if self.kind == "igloo":
            outputs = f"{patches(self.steps):,} patches of {self.hidden_size} filters for each of the last 10 steps"
            return f"igloo, {outputs}, length {self.steps:,}, batch {self.batch_size}, {dtype}"
        if self.kind == "lstm_ae":
            return f"lstm_ae, hidden {self.hidden_size}, encoding 16, length {self.steps}, batch {self.batch_size}, {dtype}"
        if self.kind == "s4d":
            sizes = f"{S4D_BLOCKS} blocks of {self.hidden_size}, N 64"
            return f"s4d, {sizes}, length {self.steps:,}, batch {self.batch_size}, {dtype}"
        if self.kind == "selective_scan":
            sizes = f"{self.hidden_size} channels, N {SELECTIVE_STATES}"
            return f"selective_scan, {sizes}, length {self.steps:,}, batch {self.batch_size}, {dtype}"
        if self.kind == "diagonal_scan":
            numbers, factors = "complex" if self.pairs else "real", "constant" if self.constant else "varying"
            sizes = f"{self.hidden_size} {numbers} numbers, {factors} factors"
            return f"diagonal scan, {sizes}, length {self.steps:,}, batch {self.batch_size}, {dtype}"
        if self.kind == "hmlstm":
            sizes = f"{HMLSTM_LAYERS} layers of {self.hidden_size}"
            return f"hmlstm, {sizes}, {HMLSTM_CHANNELS} channels, length {self.steps:,}, batch {self.batch_size}, {dtype}"
        loss = "" if self.loss == "all" else ", loss on the last output" + ", denormals flushed" * self.flush
        return f"{self.kind}, hidden {self.hidden_size}, length {self.steps:,}, batch {self.batch_size}, {dtype}{loss}"


def sides(case: Case) -> dict[str, Side]:
    """Build every implementation that can run here, by name, seqmem first."""
    return {name: build() for name, build in builders(case).items()}


def builders(case: Case) -> dict[str, Callable[[], Side]]:
    """Builders of the implementations, by name; building one alone allocates nothing for the others."""
    special = {
        "projection": _projections,
        "igloo": _igloo,
        "hmlstm": _hmlstm,
        "s4d": _s4d,
        "selective_scan": _selective_scan,
        "diagonal_scan": _diagonal_scan,
        "slstm": _slstm,
        "lstm_ae": _autoencoders,
    }
    return special[case.kind](case) if case.kind in special else _Cells(case).builders()


def patches(steps: int) -> int:
    """Number of patches for a length, in the ratio of the original's copy memory task: 6,200 for 10,000 steps."""
    return steps * 62 // 100


class _Cells:
    """Implementations of the training step of a cell, all with the same weights."""

    def __init__(self, case: Case):
        torch.manual_seed(0)
        self.case = case
        self.autocast = case.dtype == torch.bfloat16
        self.dtype = torch.float32 if self.autocast else case.dtype
        make = cells.get(case.kind)
        self.cell = make(input_size=1 + make.timed, hidden_size=case.hidden_size).to(self.dtype)
        self.inputs = torch.randn(case.batch_size, case.steps, 1, dtype=self.dtype)
        if make.timed:
            self.inputs = torch.cat([torch.rand_like(self.inputs).cumsum(1), self.inputs], -1)
        self.cotangent = torch.randn(case.batch_size, case.steps, case.hidden_size, dtype=self.dtype)
        if case.loss == "last":
            self.cotangent[:, :-1] = 0
        self.parameters = list(self.cell.parameters())

    def builders(self) -> dict[str, Callable[[], Side]]:
        case, cell = self.case, self.cell
        found: dict[str, Callable[[], Side]] = {"seqmem": lambda: self.training_step(self.forward, self.autocast)}
        if self.autocast:
            found["seqmem, float32"] = lambda: self.training_step(self.forward)
        elif case.loss == "all":
            found["seqmem, torch.compile"] = self.torch_compile
            found["seqmem, step by step"] = self.stepwise
        if isinstance(cell, TLSI):
            found["original (dense)"] = lambda: self.module(DenseTimestamped(cell))
        elif isinstance(cell, LegS):
            found["original (dense)" + ", float32" * self.autocast] = lambda: self.module(DenseLegS(cell, case.steps))
        else:
            found[f"torch.nn.{case.kind.upper()}"] = self.torch_nn
        # JAX takes half a minute to compile at hidden size 512.
        small = case.kind in ("legs", "lstm") and case.dtype == torch.float32 and case.hidden_size <= 256
        if small and not case.flush and jax_scan.available():  # JAX always flushes
            found["JAX scan"] = lambda: jax_scan.training_step(cell, self.inputs, self.cotangent)
        found["torch.mm alone"] = self.matrix_products
        return found

    def training_step(self, forward: Callable[[], Tensor], autocast: bool = False) -> Side:
        def call() -> Result:
            with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
                outputs = forward()
            if self.case.loss == "last":
                gradients = torch.autograd.grad(outputs[:, -1], self.parameters, self.cotangent[:, -1])
            else:
                gradients = torch.autograd.grad(outputs, self.parameters, self.cotangent)
            return outputs.detach(), list(gradients)

        return call

    def forward(self) -> Tensor:
        return self.cell(self.inputs)[0]

    def module(self, network: nn.Module) -> Side:
        return self.training_step(lambda: network(self.inputs))

    def torch_compile(self) -> Side:
        graph = torch.compile(self.cell)
        call = self.training_step(lambda: graph(self.inputs)[0])
        call()
        return call

    def stepwise(self) -> Side:
        state = self.cell.initial_state(len(self.inputs))
        return self.training_step(lambda: self.cell.stepwise_forward(self.inputs, state, None, True)[0])

    def torch_nn(self) -> Side:
        network = getattr(nn, self.case.kind.upper())(1, self.case.hidden_size, batch_first=True).to(self.dtype)
        for name, parameter in self.cell.named_parameters():
            setattr(network, f"{name.replace('_hx', '_ih')}_l0", parameter)
        return self.training_step(lambda: network(self.inputs)[0])

    def matrix_products(self) -> Side:
        case = self.case
        gates = {"legs": 2, "tlsi": 2, "lstm": 4, "gru": 3, "rnn": 1}[case.kind] * case.hidden_size
        products = MatrixProducts(case.hidden_size, gates, case.batch_size, case.steps, case.dtype)

        def call() -> None:
            products()

        return call


def _hmlstm(case: Case) -> dict[str, Callable[[], Side]]:
    torch.manual_seed(0)
    stack = HMLSTM(HMLSTM_CHANNELS, case.hidden_size, HMLSTM_LAYERS).to(case.dtype)
    lstm = nn.LSTM(HMLSTM_CHANNELS, case.hidden_size, HMLSTM_LAYERS, batch_first=True).to(case.dtype)
    inputs = torch.randn(case.batch_size, case.steps, HMLSTM_CHANNELS, dtype=case.dtype)

    def training_step(network: nn.Module, forward: Callable[[], Tensor]) -> Side:
        # Returns no values: torch.nn.LSTM is a different network, and rounding in float32 flips boundaries near their
        # threshold. The tests compare the implementations in float64.
        def call() -> None:
            torch.autograd.grad(forward().sum(), list(network.parameters()))

        return call

    return {
        "seqmem": lambda: training_step(stack, lambda: stack(inputs)[0]),
        "seqmem, step by step": lambda: training_step(
            stack, lambda: stack.stepwise_forward(inputs, stack.initial_state(case.batch_size), None, True)[0]
        ),
        "torch.nn.LSTM": lambda: training_step(lstm, lambda: lstm(inputs)[0]),
    }


def _s4d(case: Case) -> dict[str, Callable[[], Side]]:
    """The network of the S4D authors' example on color images as sequences, without dropout."""
    torch.manual_seed(0)
    size = case.hidden_size
    spec = DataSpec("colors", 3, 10, "classification", 0, case.steps)
    network = StackNetwork(spec, "s4d", {}, size, S4D_BLOCKS, norm_first=False, final_norm=False).to(case.dtype)
    convolving = copy.deepcopy(network)
    for block in convolving.blocks:
        mixer = FFTS4D(size, size).to(case.dtype)
        mixer.load_state_dict(block.mixer.state_dict())
        block.mixer = mixer
    batch = Batch(torch.randn(case.batch_size, case.steps, 3, dtype=case.dtype), torch.randint(10, (case.batch_size,)))

    def training_step(model: nn.Module) -> Side:
        parameters = list(model.parameters())

        def call() -> Result:
            outputs = model(batch)
            loss = nn.functional.cross_entropy(outputs, batch.targets)
            return outputs.detach(), list(torch.autograd.grad(loss, parameters))

        return call

    return {
        "seqmem": lambda: training_step(network),
        "convolution by FFT": lambda: training_step(convolving),
    }


def _selective_scan(case: Case) -> dict[str, Callable[[], Side]]:
    """The operator with all optional arguments but an initial state, at Mamba's initial rates."""
    torch.manual_seed(0)
    batch, steps, channels, states = case.batch_size, case.steps, case.hidden_size, SELECTIVE_STATES
    shapes = {
        "inputs": (batch, steps, channels),
        "delta": (batch, steps, channels),
        "b": (batch, steps, states),
        "c": (batch, steps, states),
        "skip": (channels,),
        "gate": (batch, steps, channels),
        "delta_bias": (channels,),
    }
    given = {name: torch.randn(shape, dtype=case.dtype) for name, shape in shapes.items()}
    given["a"] = -torch.arange(1, states + 1, dtype=case.dtype).repeat(channels, 1)
    given["delta_bias"] -= 4
    leaves = {name: tensor.requires_grad_() for name, tensor in given.items()}
    cotangent = torch.randn(batch, steps, channels, dtype=case.dtype)

    chosen = implementations.choose("selective_scan", given["inputs"], {}, "the selective scan").run
    assert chosen is not None
    scan, loop = partial(chosen, softplus=True), partial(selective_scan_reference, softplus=True)
    found = {
        "seqmem": lambda: _operator_step(scan, leaves, cotangent),
        "loop over steps in torch": lambda: _operator_step(loop, leaves, cotangent),
    }
    if case.dtype == torch.float32 and jax_scan.available():
        found["JAX associative scan"] = lambda: jax_selective_scan.training_step(leaves, cotangent)
    return found


def _diagonal_scan(case: Case) -> dict[str, Callable[[], Side]]:
    """The operator, and a copy that reads and writes as many bytes as it must: each array of a step once."""
    torch.manual_seed(0)
    sequence = (case.batch_size, case.steps, case.hidden_size, *((2,) if case.pairs else ()))
    factors = torch.rand(sequence[2:] if case.constant else sequence, dtype=case.dtype).mul_(0.7)
    leaves = {"a": factors.requires_grad_(), "b": torch.randn(sequence, dtype=case.dtype, requires_grad=True)}
    cotangent = torch.randn(sequence, dtype=case.dtype)

    def copies() -> Side:
        # Forward reads b and writes h, backward reads h and dh and writes db; varying factors are read twice, da is written.
        pairs, odd = divmod(5 if case.constant else 8, 2)
        target = torch.empty_like(cotangent)

        def call() -> None:
            for _ in range(pairs):
                target.copy_(cotangent)
            if odd:
                target[: case.batch_size // 2].copy_(cotangent[: case.batch_size // 2])

        return call

    chosen = implementations.choose("diagonal_scan", cotangent, {}, "the diagonal scan").run
    assert chosen is not None
    return {
        "seqmem": lambda: _operator_step(chosen, leaves, cotangent),
        "parallel scan in torch": lambda: _operator_step(diagonal_scan_parallel, leaves, cotangent),
        "loop over steps in torch": lambda: _operator_step(diagonal_scan_reference, leaves, cotangent),
        "copy of as many bytes": copies,
    }


def _slstm(case: Case) -> dict[str, Callable[[], Side]]:
    """The recurrence with 4 heads, from the projected inputs on."""
    torch.manual_seed(0)
    batch, size, heads = case.batch_size, case.hidden_size, SLSTM_HEADS
    width = size // heads
    given = {"projected": torch.randn(batch, case.steps, 4 * size, dtype=case.dtype)}
    given |= {name: torch.zeros(batch, size, dtype=case.dtype) for name in ("hidden", "memory", "normalizer", "stabilizer")}
    given["weight_hh"] = torch.randn(heads, 4 * width, width, dtype=case.dtype) * width**-0.5
    leaves = {name: given[name].requires_grad_() for name in ("projected", "weight_hh")}
    cotangent = torch.randn(batch, case.steps, size, dtype=case.dtype)
    chosen = implementations.choose("slstm", given["projected"], {}, "the sLSTM").run
    assert chosen is not None
    states = {name: tensor for name, tensor in given.items() if name not in leaves} | {"lengths": None}
    fused, loop = partial(chosen, **states), partial(slstm_reference, **states)
    return {
        "seqmem": lambda: _operator_step(fused, leaves, cotangent),
        "loop over steps in torch": lambda: _operator_step(loop, leaves, cotangent),
    }


def _operator_step(run: Callable[..., tuple[Tensor, ...]], leaves: dict[str, Tensor], cotangent: Tensor) -> Side:
    """A training step of an operator, with the gradients of ``leaves`` from that of the outputs."""

    def call() -> Result:
        outputs = run(**leaves)[0]
        return outputs.detach(), list(torch.autograd.grad(outputs, list(leaves.values()), cotangent))

    return call


def _autoencoders(case: Case) -> dict[str, Callable[[], Side]]:
    torch.manual_seed(0)
    model = LSTM_AE(2, 16, [case.hidden_size]).to(case.dtype)
    inputs = torch.randn(case.batch_size, case.steps, 2, dtype=case.dtype)
    parameters = list(model.parameters())
    optimizer = torch.optim.Adam(parameters, lr=0.0)  # full cost of an update, with constant weights for the comparison

    def training_step(network: nn.Module, items: Tensor) -> Side:
        def call() -> Result:
            optimizer.zero_grad()
            outputs = []
            for item in items:
                outputs.append(network(item))
                (outputs[-1] - item).square().sum().backward()
                optimizer.step()
            return torch.cat(outputs).detach().view_as(inputs), [parameter.grad.clone() for parameter in parameters]

        return call

    return {
        "seqmem": lambda: training_step(model, inputs[None]),
        "original (one sequence at a time)": lambda: training_step(SingleSequenceAE(model), inputs),
    }


def _igloo(case: Case) -> dict[str, Callable[[], Side]]:
    torch.manual_seed(0)
    layer = IGLOO1D((case.steps, 1), patches(case.steps), case.hidden_size, return_sequences=True, nb_sequences=10, psy=0.1)
    layer.to(case.dtype)
    parameters = list(layer.parameters())
    inputs = torch.randn(case.batch_size, case.steps, 1, dtype=case.dtype)
    cotangent = torch.randn(case.batch_size, 10, layer.output_size, dtype=case.dtype)

    def training_step(network: nn.Module) -> Side:
        def call() -> Result:
            outputs = network(inputs)
            return outputs.detach(), list(torch.autograd.grad(outputs, parameters, cotangent))

        return call

    return {
        "seqmem": lambda: training_step(layer),
        "all patches gathered": lambda: training_step(GatheredPatches(layer)),
    }


def _projections(case: Case) -> dict[str, Callable[[], Side]]:
    torch.manual_seed(0)
    signals = torch.randn(case.batch_size, case.steps, dtype=torch.float64).cumsum(1).div(1000).to(case.dtype)

    def compiled() -> Result:
        threads = torch.get_num_threads()
        torch.set_num_threads(1 if case.batch_size == 1 else threads)
        try:
            return legs_function_approximation(signals, case.hidden_size), []
        finally:
            torch.set_num_threads(threads)

    def sequential() -> Result:
        return torch.stack([project(signal, case.hidden_size) for signal in signals]), []

    return {"seqmem": lambda: compiled, "original (sequential kernel, one thread)": lambda: sequential}
