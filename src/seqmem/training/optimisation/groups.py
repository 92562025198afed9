"""Parameter groups: which parameters share a learning rate and a weight decay."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from seqmem.sequence import SequenceLayer


@dataclass(frozen=True)
class _Kind:
    """Settings shared by the parameters of a group."""

    lr_scale: float = 1.0
    max_lr: float = float("inf")
    no_decay: bool = False
    blocks: int = 1

    def within(self, owner: object) -> "_Kind":
        """Return the settings of what has the attributes of a parameter or a whole module, within a module of this kind."""
        scale, most, free = (getattr(owner, name, None) for name in ("lr_scale", "max_lr", "no_decay"))
        return replace(
            self,
            lr_scale=self.lr_scale * scale if isinstance(scale, float | int) else self.lr_scale,
            max_lr=min(self.max_lr, most) if isinstance(most, float | int) else self.max_lr,
            no_decay=self.no_decay or free is True,
        )

    def named(self, module: nn.Module, name: str) -> "_Kind":
        """Return the settings of a module's own parameter, which attributes of the module may name."""
        scales, most, free = (getattr(module, attribute, None) for attribute in ("lr_scale", "max_lr", "no_decay"))
        return replace(
            self,
            lr_scale=self.lr_scale * scales.get(name, 1.0) if isinstance(scales, Mapping) else self.lr_scale,
            max_lr=min(self.max_lr, most.get(name, self.max_lr)) if isinstance(most, Mapping) else self.max_lr,
            no_decay=self.no_decay or (isinstance(free, tuple) and name in free),
        )


def parameter_groups(model: nn.Module, lr: float, by_gates: bool = False) -> list[dict[str, Any]]:
    """Group the parameters of a model for an optimiser.

    A parameter or a module may have these attributes:

    - ``lr_scale`` multiplies the learning rate, that of nested modules included.
    - ``max_lr`` is the largest learning rate: the parameter's is min(lr * lr_scale, max_lr).
    - ``no_decay`` sets the weight decay to 0.

    Those of a module are for all its parameters, nested modules included; or for some of its own parameters, as a mapping
    from their names to values, ``self.max_lr = {"log_dt": 1e-3}``, or as a tuple of names, ``no_decay = ("log_dt",)``. What
    torch.nn.utils.parametrize makes of a named parameter has its learning rate and weight decay. A schedule multiplies the
    learning rate of each group by the same factor. A copy of a model keeps the attributes of its modules, not those of its
    parameters. A tied parameter belongs to the first module that has it.

    Args:
        model: whose parameters are grouped.
        lr: learning rate before scaling.
        by_gates: parameters that hold the rows of several gates get groups with ``blocks``, the number of gates.
    """
    groups: dict[_Kind, list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    for parameter, kind in _described(model, _Kind(), by_gates):
        if parameter not in seen:
            seen.add(parameter)
            groups.setdefault(kind, []).append(parameter)
    return [{"params": parameters, **_settings(kind, lr)} for kind, parameters in groups.items()]


def _settings(kind: _Kind, lr: float) -> dict[str, Any]:
    settings: dict[str, Any] = {"lr": min(lr * kind.lr_scale, kind.max_lr)}
    if kind.no_decay:
        settings["weight_decay"] = 0.0
    if kind.blocks > 1:
        settings["blocks"] = kind.blocks
    return settings


def _described(module: nn.Module, kind: _Kind, by_gates: bool) -> Iterator[tuple[nn.Parameter, _Kind]]:
    """Yield each parameter with its kind; attributes of a module apply to the modules below it."""
    kind = kind.within(module)
    for name, parameter in module.named_parameters(recurse=False):
        gates = module.gates(name) if by_gates and isinstance(module, SequenceLayer) else 1
        yield parameter, replace(kind.named(module, name).within(parameter), blocks=gates)
    for name, child in module.named_children():
        if name == "parametrizations" and is_parametrized(module):
            for parametrized, parametrizations in child.named_children():
                yield from _described(parametrizations, kind.named(module, parametrized), by_gates)
        else:
            yield from _described(child, kind, by_gates)
