"""Parameter groups: which parameters share a learning rate and a weight decay."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from seqmem.sequence import SequenceLayer


@dataclass(frozen=True)
class _Kind:
    """Settings shared by the parameters of a group."""

    lr_scale: float
    no_decay: bool
    blocks: int


def parameter_groups(model: nn.Module, lr: float, by_gates: bool = False) -> list[dict[str, Any]]:
    """Group the parameters of a model for an optimiser.

    A parameter or a module may have two attributes. ``lr_scale`` multiplies the learning rate, that of nested modules
    included. ``no_decay`` sets the weight decay to 0; that of a module is true for all its parameters, or a tuple with the
    names of its own. A copy of a model keeps the attributes of its modules, not those of its parameters. A tied parameter
    belongs to the first module that has it.

    Args:
        model: whose parameters are grouped.
        lr: learning rate before scaling.
        by_gates: parameters that hold the rows of several gates get groups with ``blocks``, the number of gates.
    """
    groups: dict[_Kind, list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    for parameter, kind in _described(model, 1.0, False, by_gates):
        if parameter not in seen:
            seen.add(parameter)
            groups.setdefault(kind, []).append(parameter)
    return [{"params": parameters, **_settings(kind, lr)} for kind, parameters in groups.items()]


def _settings(kind: _Kind, lr: float) -> dict[str, Any]:
    settings: dict[str, Any] = {"lr": lr * kind.lr_scale}
    if kind.no_decay:
        settings["weight_decay"] = 0.0
    if kind.blocks > 1:
        settings["blocks"] = kind.blocks
    return settings


def _described(module: nn.Module, lr_scale: float, no_decay: bool, by_gates: bool) -> Iterator[tuple[nn.Parameter, _Kind]]:
    """Yield each parameter with its kind; attributes of a module apply to the modules below it."""
    lr_scale = lr_scale * getattr(module, "lr_scale", 1.0)
    named = getattr(module, "no_decay", False)
    no_decay = no_decay or named is True
    for name, parameter in module.named_parameters(recurse=False):
        gates = module.gates(name) if by_gates and isinstance(module, SequenceLayer) else 1
        own_scale = getattr(parameter, "lr_scale", 1.0)
        own_no_decay = getattr(parameter, "no_decay", False) or (isinstance(named, tuple) and name in named)
        yield parameter, _Kind(lr_scale * own_scale, no_decay or own_no_decay, gates)
    for child in module.children():
        yield from _described(child, lr_scale, no_decay, by_gates)
