"""Optimisers by name with typed arguments, and the parameter groups that they get."""

import copy

import pytest
import torch
from torch import nn

from seqmem import cells
from seqmem.errors import UserError
from seqmem.layers.ema import EMA
from seqmem.training import check_config
from seqmem.training.config import TrainConfig
from seqmem.training.optimisation.build import optimizer_for
from seqmem.training.optimisation.groups import parameter_groups
from seqmem.training.optimisation.muon import Muon
from seqmem.training.optimisation.optimizers import OptimizerSettings
from tests.pretended_gpu import PretendedGPU

PLAIN = {"model": {"network": "recurrent"}, "dataset": {}, "train": {}, "runner": {}}


def checked(**train):
    return check_config({**PLAIN, "train": train})["train"]


def test_an_optimiser_gets_its_arguments():
    for name, kind, arguments, more in [
        ("adam", torch.optim.Adam, {"betas": [0.8, 0.99], "eps": 1e-6}, {"betas": (0.8, 0.99), "eps": 1e-6}),
        ("adamw", torch.optim.AdamW, {"amsgrad": True}, {"amsgrad": True, "betas": (0.9, 0.999)}),
        ("muon", Muon, {"momentum": 0.5, "iterations": 2}, {"momentum": 0.5, "iterations": 2}),
        ("rmsprop", torch.optim.RMSprop, {"alpha": 0.9, "centered": True}, {"alpha": 0.9, "centered": True, "momentum": 0}),
        ("sgd", torch.optim.SGD, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.9, "nesterov": True}),
    ]:
        train = TrainConfig(**checked(optimizer=name, optimizer_args=arguments, lr=0.5, wd=0.25))
        optimizer = optimizer_for(nn.Linear(3, 2), train)
        assert type(optimizer) is kind
        [group] = optimizer.param_groups
        expected = {"lr": 0.5, "weight_decay": 0.25, **more}
        assert {key: group[key] for key in expected} == expected


def test_the_defaults_are_those_of_torch():
    """So that results without arguments stay as they are."""
    layer = nn.Linear(3, 2)
    for name, kind in {"adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop", "sgd": "SGD"}.items():
        own = optimizer_for(layer, TrainConfig(optimizer=name, lr=0.1))
        expected = getattr(torch.optim, kind)(layer.parameters(), lr=0.1, weight_decay=0.0)
        assert own.defaults == expected.defaults


WRONG = [
    ({"optimizer": "adm"}, r"train\.optimizer: got 'adm', expected a registered name; did you mean 'adam'\?"),
    (
        {"optimizer_args": {"beta": [1, 2]}},
        r"train\.optimizer_args\.beta: adam takes no argument 'beta'; did you mean 'betas'",
    ),
    ({"optimizer_args": {"betas": [0.9, 1.5]}}, r"train\.optimizer_args\.betas\.1: got 1\.5, expected less than 1"),
    ({"optimizer": "sgd", "optimizer_args": {"nesterov": True}}, "nesterov: got True without a momentum"),
    ({"schedule": "cosin"}, r"train\.schedule: got 'cosin', expected a registered name; did you mean 'cosine'\?"),
    ({"schedule": "inverse_time"}, r"train\.schedule_args\.decay: a value is required"),
    (
        {"schedule": "cosine", "schedule_args": {"decay": 1}},
        r"train\.schedule_args\.decay: cosine takes no argument 'decay'",
    ),
    ({"schedule_interval": "steps"}, r"train\.schedule_interval: got 'steps', expected .*; did you mean 'step'\?"),
    ({"schedule_interval": "step"}, r"train\.schedule_interval: got 'step', expected 'epoch', since .*schedule is constant"),
    ({"schedule_interval": "step", "lr_decay": 0.1}, r"train\.schedule_interval: .* since train\.lr_decay=0\.1 already"),
    ({"warmup_steps": 1.5}, r"train\.warmup_steps: got 1\.5"),
    ({"final_lr": 0.1}, r"train\.final_lr: got 0\.1, expected null, since train\.schedule is constant"),
    ({"lr_decay": 0.1, "schedule": "cosine"}, r"train\.lr_decay: got 0\.1 with train\.schedule=cosine"),
    ({"gradient_clip_algorithm": "size"}, r"train\.gradient_clip_algorithm: got 'size', expected 'norm' or 'value'"),
]


def test_wrong_settings_are_named_before_anything_is_loaded():
    for train, message in WRONG:
        with pytest.raises(UserError, match=message):
            checked(**train)


def test_an_optimiser_registers_itself_by_its_name():
    class Sign(OptimizerSettings):
        name = "sign"

        def build(self, model, lr, weight_decay):
            return torch.optim.Rprop(parameter_groups(model, lr), lr)

    try:
        assert isinstance(optimizer_for(nn.Linear(2, 2), TrainConfig(**checked(optimizer="sign"))), torch.optim.Rprop)
    finally:
        del OptimizerSettings._registry["sign"]


class Kept(nn.Module):
    """A module that names its parameters without weight decay, and those with a learning rate of their own."""

    no_decay = ("free",)

    def __init__(self):
        super().__init__()
        self.free, self.plain = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
        self.capped, self.slow = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
        self.max_lr, self.lr_scale = {"capped": 1e-3, "plain": 2.0}, {"slow": 0.25}


class Described(nn.Module):
    """Parameters with attributes of their own, and modules with some."""

    def __init__(self):
        super().__init__()
        self.plain = nn.Parameter(torch.ones(2))
        self.slow = nn.Parameter(torch.ones(2))
        self.slow.lr_scale = 0.1
        self.free = nn.Parameter(torch.ones(2))
        self.free.no_decay = True
        self.layer = nn.Linear(2, 2)
        self.layer.lr_scale = 0.5
        self.layer.bias.lr_scale = 0.1
        self.kept = Kept()
        self.norm = nn.Sequential(nn.LayerNorm(2))
        self.norm.no_decay = True
        self.norm.max_lr = 0.7


def test_what_parametrizes_a_parameter_has_its_settings():
    kept = Kept()
    for name in ("free", "capped", "plain"):
        nn.utils.parametrizations.weight_norm(kept, name)
    groups = parameter_groups(nn.Sequential(kept), 1.0)
    found = {id(p): (group["lr"], group.get("weight_decay")) for group in groups for p in group["params"]}
    expected = {"free": (1.0, 0.0), "capped": (1e-3, None), "plain": (1.0, None), "slow": (0.25, None)}
    named = {name: found[id(parameter)] for name, parameter in kept.named_parameters()}
    assert named == {
        "slow": expected["slow"],
        **{f"parametrizations.{name}.original{k}": expected[name] for name in ("free", "capped", "plain") for k in (0, 1)},
    }


@pytest.mark.parametrize("dim", [0, 1, None])
def test_parametrized_gates_are_one_matrix(dim):
    """Their parts may have other shapes, and their value may be random."""
    cell = cells.LSTM(3, 4)
    nn.utils.parametrizations.weight_norm(cell, "weight_ih", dim=dim)
    groups = parameter_groups(cell, 1.0, by_gates=True)
    blocks = {id(p): group.get("blocks", 1) for group in groups for p in group["params"]}
    for name, parameter in cell.named_parameters():
        assert blocks[id(parameter)] == (1 if "parametrizations" in name else 4)
    Muon(groups, lr=0.1)


def test_learning_rates_are_scaled_and_weights_kept_from_decay():
    for optimizer in ["adam", "muon"]:
        model = Described()
        groups = optimizer_for(model, TrainConfig(optimizer=optimizer, lr=1.0, wd=0.5)).param_groups
        found = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
        assert {name: found[id(parameter)] for name, parameter in model.named_parameters()} == {
            "plain": (1.0, 0.5),
            "slow": (0.1, 0.5),
            "free": (1.0, 0.0),
            "layer.weight": (0.5, 0.5),
            "layer.bias": (0.05, 0.5),
            "kept.free": (1.0, 0.0),
            "kept.plain": (1.0, 0.5),
            "kept.capped": (1e-3, 0.5),
            "kept.slow": (0.25, 0.5),
            "norm.0.weight": (0.7, 0.0),
            "norm.0.bias": (0.7, 0.0),
        }


def test_a_copy_of_a_layer_keeps_its_parameters_from_decay():
    """A copy of a parameter has no attributes, so that the layer holds their names."""
    layer = copy.deepcopy(EMA(2, 3))
    free = next(group["params"] for group in parameter_groups(layer, 1.0) if "weight_decay" in group)
    assert {id(parameter) for parameter in free} == {id(layer.nu), id(layer.theta)}


def test_a_parameter_without_decay_stays_where_its_gradient_is_zero():
    model = Described()
    optimizer = optimizer_for(model, TrainConfig(optimizer="sgd", lr=1.0, wd=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert model.free.tolist() == [1, 1]
    assert model.plain.tolist() == [0.5, 0.5]


def test_a_tied_parameter_has_one_group():
    layer = nn.Linear(3, 3)
    groups = parameter_groups(nn.Sequential(layer, layer), 0.1)
    assert sum(len(group["params"]) for group in groups) == 2


def test_the_gates_of_a_recurrence_are_matrices_of_their_own():
    for name, gates, settings in (
        ("lstm", 4, {}),
        ("mgu", 2, {}),
        ("rnn", 1, {}),
        ("legs", 2, {"memory_output": True}),
        ("legs", 1, {"memory_size": 16, "gate": "N"}),
    ):
        cell = cells.get(name)(3, hidden_size=8, **settings)
        optimizer = optimizer_for(nn.Sequential(cell, nn.Linear(8, 16)), TrainConfig(optimizer="muon"))
        blocks = {id(parameter): group["blocks"] for group in optimizer.param_groups for parameter in group["params"]}
        assert {name: blocks[id(cell.get_parameter(name))] for name, _ in cell.named_parameters()} == {
            name: gates if name.startswith(("weight_h", "weight_i", "bias_h", "bias_i")) and len(value) == 8 * gates else 1
            for name, value in cell.named_parameters()
        }
        assert gates in blocks.values()
        assert len(blocks) == len(list(cell.parameters())) + 2


def test_one_kernel_updates_the_parameters_of_a_gpu():
    layer = nn.Linear(2, 3)
    for name, fused in (("adam", True), ("adamw", True), ("sgd", True), ("rmsprop", None)):
        for on_gpu in (False, True):
            with PretendedGPU():
                given = copy.deepcopy(layer).to("cuda" if on_gpu else "cpu")
                optimizer = OptimizerSettings.select(name).build(given, 0.1, 0.0)
            assert optimizer.defaults.get("fused") is (fused if on_gpu else None)
