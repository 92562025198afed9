"""The optimiser of a config, and its learning rate in the course of training."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from seqmem.sequence import SequenceLayer
from seqmem.training.config import TrainConfig
from seqmem.training.optimisation.muon import Muon
from seqmem.training.optimisation.schedules import learning_rate

_optimizers: dict[str, type[Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "muon": Muon,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}


def optimizer_for(model: nn.Module, config: TrainConfig) -> Optimizer:
    """The config's optimiser; a module's ``lr_scale`` scales the learning rate of its parameters."""
    groups: dict[tuple[float, int], list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    for parameter, scale, blocks in _described(model, 1.0):
        if parameter in seen:  # tied
            continue
        seen.add(parameter)
        groups.setdefault((scale, blocks if config.optimizer == "muon" else 1), []).append(parameter)
    described = [
        {"params": parameters, "lr": config.lr * scale, **({"blocks": blocks} if blocks > 1 else {})}
        for (scale, blocks), parameters in groups.items()
    ]
    return _optimizers[config.optimizer](described, lr=config.lr, weight_decay=config.wd)  # type: ignore[call-arg]


def schedule_for(optimizer: Optimizer, config: TrainConfig) -> tuple[LambdaLR, Literal["step", "epoch"]] | None:
    """What changes the learning rate, and after what it is to be told; None if it stays."""
    if config.lr_decay > 0:
        return LambdaLR(optimizer, lambda update: 1 / (1 + config.lr_decay * update)), "step"
    if config.schedule == "constant":
        return None
    last = config.lr / 100 if config.final_lr is None else config.final_lr

    def factor(epoch: int) -> float:
        return learning_rate(config.schedule, epoch / max(config.epochs, 1), config.lr, last) / config.lr

    return LambdaLR(optimizer, factor), "epoch"


def _described(module: nn.Module, scale: float) -> Iterator[tuple[nn.Parameter, float, int]]:
    """Each parameter, the scale of its learning rate, and of how many gates it holds the rows."""
    scale = scale * getattr(module, "lr_scale", 1.0)
    for name, parameter in module.named_parameters(recurse=False):
        yield parameter, scale, module.gates(name) if isinstance(module, SequenceLayer) else 1
    for child in module.children():
        yield from _described(child, scale)
