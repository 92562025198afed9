"""Every cell, layer and model on a pretended GPU: nothing in forward, loss, metrics and backward waits for it.

The first call of a layer may copy its constants there, so the second one is watched.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from seqmem import cells, models
from seqmem.cells import positions
from seqmem.data import Batch, DataSpec
from seqmem.models import SequenceModel
from seqmem.ops.gpu.captures import Graphs
from seqmem.ops.states import mapped, parts
from seqmem.sequence import cuda_graph
from seqmem.tasks import task_for
from seqmem.training.loop.carried_states import CarriedStates
from seqmem.training.loop.clipping import clip_gradients
from seqmem.training.loop.mean import WeightedMean
from tests.cells import test_battery as cell_battery
from tests.fake_graphs import Recomputed
from tests.layers import test_battery as layer_battery
from tests.pretended_gpu import CUDA, PretendedGPU, Wait, moved, watched

CONFIGS = Path(__file__).parents[1] / "cfg" / "model"
TIMED = ("tlsi", "tlti")

EXCEPTIONS = {
    "cells/positions.py": "read once for a state after padded steps: rows at one position run in chunks, which pays for it",
    "models/function_approximation.py": "nothing is trained: rows of one length are read together, which the host knows",
    "hippo/reconstruction.py": "used by function_approximation alone",
}
"""Files that may wait, with the reason."""


@pytest.fixture(autouse=True)
def _no_graph(monkeypatch):
    """Run what a graph would capture: there is nothing that could capture it."""
    monkeypatch.setattr(cuda_graph, "device_graphs", lambda device: Graphs(Recomputed()))


def refuse(waits: list[Wait]) -> None:
    assert not [str(wait) for wait in waits if wait.place.partition(":")[0] not in EXCEPTIONS]


def run_layer(layer: nn.Module, inputs: Tensor) -> None:
    """Watch a layer on inputs (B, T, C), with lengths and a carried state, and its gradients."""
    lengths = torch.tensor([inputs.shape[1], 1, 2, 0])
    with PretendedGPU():
        layer, inputs, lengths = moved(layer), moved(inputs).requires_grad_(), moved(lengths)
        with watched():
            _, state = layer(inputs, lengths=lengths)
        with watched() as waits:
            outputs, after = layer(inputs, mapped(torch.detach, state), lengths)
            (outputs.sum() + sum(part.abs().sum() for part in parts(after))).backward()
        assert outputs.is_cuda
        assert inputs.grad is not None
        assert inputs.grad.is_cuda
    refuse(waits)


@pytest.mark.parametrize("name", cells.names())
def test_a_cell_waits_for_nothing(name):
    run_layer(cell_battery.make(name, dtype=torch.float32), cell_battery.sample(name, 4, 3, torch.float32))


OTHER_CELLS = {
    "cayley": lambda: cells.Orthogonal(3, 5, method="cayley"),
    "dtriv": lambda: cells.Orthogonal(3, 5, method="dtriv", K=1),
    "gru that resets before": lambda: cells.GRU(3, 5, reset_after=False),
    "hmlstm that samples": lambda: cells.HMLSTM(3, 5, num_layers=1, boundary="sample", top_detector=True),
    "learned step": lambda: cells.LegT(3, 5, trainable_scale=1.0),
    "zoh": lambda: cells.LegS(3, 5, discretization="zoh", max_length=2),
}


@pytest.mark.parametrize("case", OTHER_CELLS)
def test_a_cell_of_other_settings_waits_for_nothing(case):
    run_layer(OTHER_CELLS[case](), torch.randn(4, 3, 3))


@pytest.mark.parametrize("together", [True, False])
def test_a_carried_state_without_lengths_waits_for_nothing(together):
    cell = cells.LegS(3, 5)
    with PretendedGPU():
        cell, inputs = moved(cell), moved(torch.randn(4, 3, 3))
        state = cell.initial_state(4)
        if not together:
            positions.remember(state.step, None)
        with watched() as waits:
            for _ in range(3):
                _, state = cell(inputs, mapped(torch.detach, state))
        assert cell.path.startswith("chunks" if together else "step by step")
    refuse(waits)


@pytest.mark.parametrize("name", layer_battery.NAMES)
def test_a_layer_waits_for_nothing(name):
    run_layer(layer_battery.make(name).float(), torch.randn(4, 3, 3))


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return a config with another one laid over it."""
    inner = {key: merged(old[key], value) for key, value in new.items() if isinstance(value, dict) and old.get(key)}
    return {**old, **new, **inner}


def tiny(name: str, **changes: Any) -> dict[str, Any]:
    """Return the model section of a config's tiny preset."""
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    preset = config.pop("presets")["tiny"]
    config.pop("preset")
    return merged(merged(config, preset), changes)


def spec_of(task: str = "classification", output_steps: int | None = 0, **settings: Any) -> DataSpec:
    return DataSpec("walk", 3, 4 if task in ("classification", "language_modelling") else 3, task, output_steps, 6, **settings)


def batch_of(spec: DataSpec) -> Batch:
    """Four sequences of up to six steps; of several targets, one is ignored."""
    shape = (4,) if spec.output_steps == 0 else (4, spec.output_steps or 6)
    values = torch.randn(4, 6, spec.input_size)
    if spec.task in ("classification", "language_modelling"):
        targets = torch.randint(0, spec.output_size, shape)
        targets[0] = -100
    else:
        targets = values if spec.task == "reconstruction" else torch.randn(*shape, spec.output_size)
    inputs = values.argmax(-1) if spec.tokens else values
    times = torch.rand(4, 6).cumsum(1) if spec.times else None
    return Batch(inputs, targets, torch.tensor([6, 3, 1, 5]), times, restarts=torch.tensor([True, False, False, False]))


RECONSTRUCTION, TEXT = spec_of("reconstruction", None), spec_of("language_modelling", None, tokens=True)
OWN_DATA = {
    "conv_lstm_ae": DataSpec("video", 20, 20, "reconstruction", None, 6, frame=(4, 5)),
    "function_approximation": DataSpec("signals", 1, 1, "reconstruction", None, 6),
    **dict.fromkeys(("linear_ae", "lstm_ae", "seq2seq_ae"), RECONSTRUCTION),
    **dict.fromkeys(TIMED, spec_of(times=True)),
}
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
CASES = [(name, OWN_DATA.get(name, spec_of()), {}) for name in NAMES]
MORE_CASES = [
    ("ema", spec_of(), {"norm": "batch"}),
    ("ema", spec_of(), {"bidirectional": True, "feed_forward": "mlp", "norm": "rms", "dropout": 0.5}),
    ("function_approximation", OWN_DATA["function_approximation"], {"memory": "lmu"}),
    ("function_approximation", OWN_DATA["function_approximation"], {"memory": "lstm"}),
    ("igloo", TEXT, {"DR": 0.5, "nb_stacks": 2}),
    ("lstm_ae", RECONSTRUCTION, {"growth_epochs": 3, "first_window": 3, "noise": 0.1}),
    ("seq2seq_ae", RECONSTRUCTION, {"stop": "token", "dropout": 0.5}),
    ("lstm", spec_of("classification", None), {}),
    *((name, spec_of("regression", 3), {}) for name in ("gru", "hmlstm", "igloo", "tcn")),
    *((name, spec_of("forecasting", None), {}) for name in ("ema", "legs", "tcn")),
    *((name, replace(TEXT, contiguous=True), {"dropout": 0.5}) for name in ("lstm", "ema", "hmlstm")),
]
QUICK = ("igloo", "seq2seq_ae", "function_approximation")

QUICK_CASES = (
    "ema-classification-norm=batch",
    "lstm-classification",
    "tcn-regression",
    "lstm-language_modelling-dropout=0.5",
    "igloo-regression",
)


def case_id(case: tuple[str, DataSpec, dict[str, Any]]) -> str:
    name, spec, changes = case
    return "-".join([name, spec.task, *(f"{key}={value}" for key, value in changes.items())])


def step(model: SequenceModel, batch: Batch, tools: tuple[Any, ...]) -> None:
    """Take a training step of a model as :class:`seqmem.training.loop.module.SequenceModule` does."""
    task, metrics, mean, states, optimizer = tools
    own = model.augment(batch)
    if task.spec.contiguous:
        outputs, state = model.carry(own, states.before("train", own, model))
        states.after("train", state)
        loss = task.loss(outputs, own)
    else:
        outputs, loss = model.learn(own, task)
    mean.update(loss.detach(), task.weight(own))
    task.update(metrics, outputs.detach(), own)
    penalty = model.penalty()
    loss = loss if penalty is None else loss + penalty
    if loss.requires_grad:
        loss.backward()
        clip_gradients(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def run_model(name: str, spec: DataSpec, changes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model, task = models.build(tiny(name, **changes), spec), task_for(spec)
    batch = batch_of(spec)
    model.prepare([batch])
    with PretendedGPU():
        model, batch, metrics, mean = moved(model), batch.to(CUDA), moved(task.metrics()), moved(WeightedMean())
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad] or [nn.Parameter(torch.zeros(1))])
        tools = task, metrics, mean, CarriedStates(), optimizer
        with watched():
            step(model, batch, tools)
        with watched() as waits:
            step(model, batch, tools)
    refuse(waits)


def marked(cases: list[Any], quick: tuple[str, ...]) -> Any:
    """Parametrize a test by cases, which are slow unless their name or that of their model is among the quick ones."""
    marks = [[] if {case[0], case_id(case)} & set(quick) else pytest.mark.slow for case in cases]
    return pytest.mark.parametrize(
        "case", [pytest.param(case, id=case_id(case), marks=mark) for case, mark in zip(cases, marks, strict=True)]
    )


@marked(CASES, QUICK)
def test_a_step_of_each_model_waits_for_nothing(case):
    run_model(*case)


@marked(MORE_CASES, QUICK_CASES)
def test_a_step_of_each_task_and_setting_waits_for_nothing(case):
    run_model(*case)


class Faulty(nn.Module):
    """A module with a fault of one kind in forward, and in backward if that is said."""

    def __init__(self, fault: Any, in_backward: bool = False):
        super().__init__()
        self.fault, self.in_backward = fault, in_backward

    def forward(self, values: Tensor) -> Tensor:
        if self.in_backward:
            return _FaultyBackward.apply(values, self.fault)
        self.fault(values)
        return values.sum()


class _FaultyBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, fault):
        ctx.fault = fault
        return values.sum()

    @staticmethod
    def backward(ctx, grad):
        ctx.fault(grad.expand(3))
        return grad.expand(3), None


FAULTS = {
    "item() or bool()": [
        lambda values: values.sum().item(),
        lambda values: bool((values > 0).any()),
        lambda values: values[values.long()[0]],
        lambda values: int(values[0]),
        lambda values: values.isnan().any() and None,
    ],
    "a copy to the host": [
        lambda values: values.cpu(),
        lambda values: values.tolist(),
        lambda values: values.detach().numpy(),
        lambda values: torch.zeros(3).copy_(values),
    ],
    "a copy to the GPU": [
        lambda values: torch.arange(3).to(values.device),
        lambda values: values.new_zeros(3).copy_(torch.zeros(3)),
    ],
    "a tensor made of values of the host": [
        lambda values: torch.tensor([1.0], device=values.device),
        lambda values: values.new_tensor([1.0]),
    ],
    "aten.nonzero": [lambda values: values.nonzero(), lambda values: torch.where(values > 0)],
    "aten.equal": [lambda values: torch.equal(values, values)],
    "an index by a mask": [lambda values: values[values > 0]],
    "of tensors of the host and of the GPU": [lambda values: values + torch.ones(3)],
    "aten._linalg_check_errors": [lambda values: torch.linalg.inv(values.diag())],
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_planted_fault_is_found(kind):
    for fault in FAULTS[kind]:
        for in_backward in (False, True):
            with PretendedGPU(), watched() as waits:
                values = torch.ones(3, device="cuda", requires_grad=True)
                Faulty(fault, in_backward)(values).backward()
            assert len(waits) == 1
            assert kind in waits[0].what
            assert waits[0].module == ("backward of _FaultyBackwardBackward" if in_backward else "Faulty")
            with pytest.raises(AssertionError, match="outside of seqmem"):
                refuse(waits)


def test_what_waits_is_named_by_its_line(monkeypatch):
    spec = spec_of("regression", 3)
    monkeypatch.setattr(Batch, "on_host", property(lambda batch: batch))
    with pytest.raises(AssertionError, match=r"item\(\) or bool\(\) in .*tasks/base.py:\d+ \(weight\)"):
        run_model("tcn", spec, {})


def test_what_a_gpu_does_without_waiting_passes():
    with PretendedGPU(), watched() as waits:
        values = torch.ones(3, device="cuda", requires_grad=True)
        assert (values.device.type, values.is_cuda, values.is_meta, values.get_device()) == ("cuda", True, False, 99)
        mask = values > 0
        (values.masked_fill(mask, 0.0) + torch.where(mask, values, 1) + torch.tensor(2.0)).sum().backward()
        torch.zeros(3).pin_memory().to(values.device, non_blocking=True)
        torch.zeros_like(values)[mask] = 0.0
    assert not waits
