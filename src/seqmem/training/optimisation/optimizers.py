"""Optimisers that ``train.optimizer`` selects, with the arguments that ``train.optimizer_args`` may hold.

To add an optimiser, write a dataclass below :class:`OptimizerSettings` with ``name``, fields for its arguments, and ``build``::

    @dataclass(frozen=True)
    class Adagrad(OptimizerSettings):
        name = "adagrad"
        eps: PositiveFloat = 1e-10

        def build(self, model, lr, weight_decay):
            return torch.optim.Adagrad(parameter_groups(model, lr), lr, weight_decay=weight_decay, eps=self.eps)

The annotations are the schema of ``train.optimizer_args``, which is checked before the data are loaded:
``train.optimizer=adagrad train.optimizer_args.eps=1e-8``. A class is registered when its module is imported, so write it here,
or in the module of a cell, a model or a data set. :func:`parameter_groups` gives parameters their own learning rates.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import nn
from torch.optim import Optimizer

from seqmem.errors import UserError
from seqmem.training.optimisation import muon
from seqmem.training.optimisation.groups import parameter_groups
from seqmem.training.optimisation.selectable import Selectable

Fraction = Annotated[float, Field(ge=0, lt=1)]
Betas = Annotated[tuple[Fraction, Fraction], Field(strict=False)]  # a config holds it as a list


class OptimizerSettings(Selectable):
    """Base of an optimiser's arguments. A dataclass below it with a ``name`` is registered."""

    key = "train.optimizer"

    def build(self, model: nn.Module, lr: float, weight_decay: float) -> Optimizer:
        """Create the optimiser of a model's parameters, grouped by :func:`parameter_groups`."""
        raise NotImplementedError


def one_kernel(model: nn.Module) -> bool | None:
    """Return True if one kernel of a GPU can update all parameters (torch's argument ``fused``), else None: torch chooses."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return (bool(trained) and all(parameter.is_cuda and parameter.is_floating_point() for parameter in trained)) or None


@dataclass(frozen=True)
class Adam(OptimizerSettings):
    """Adam (Kingma and Ba, 2015). Weight decay is added to the gradient.

    Attributes:
        betas: decay rates of the moving averages of the gradient and of its square.
        eps: added to the square root of the second average, by which a step is divided.
        amsgrad: use the largest second average so far instead of the current one (Reddi et al., 2018).
    """

    name = "adam"
    betas: Betas = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    amsgrad: bool = False

    def build(self, model: nn.Module, lr: float, weight_decay: float) -> Optimizer:
        """Create torch's Adam."""
        groups = parameter_groups(model, lr)
        return torch.optim.Adam(groups, lr, self.betas, self.eps, weight_decay, self.amsgrad, fused=one_kernel(model))


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019); arguments as for Adam."""

    name = "adamw"

    def build(self, model: nn.Module, lr: float, weight_decay: float) -> Optimizer:
        """Create torch's AdamW."""
        groups = parameter_groups(model, lr)
        return torch.optim.AdamW(groups, lr, self.betas, self.eps, weight_decay, self.amsgrad, fused=one_kernel(model))


@dataclass(frozen=True)
class Muon(OptimizerSettings):
    """Muon: steps with orthogonalised momentum (:class:`seqmem.training.optimisation.muon.Muon`).

    Attributes:
        momentum: decay rate of the moving average of the gradient.
        iterations: Newton-Schulz iterations of the orthogonalisation.
    """

    name = "muon"
    momentum: Fraction = 0.8
    iterations: PositiveInt = 3

    def build(self, model: nn.Module, lr: float, weight_decay: float) -> Optimizer:
        """Create a Muon that takes each gate as a matrix of its own."""
        groups = parameter_groups(model, lr, by_gates=True)
        return muon.Muon(groups, lr, weight_decay, self.momentum, self.iterations)


@dataclass(frozen=True)
class RMSprop(OptimizerSettings):
    """RMSprop (Tieleman and Hinton, 2012).

    Attributes:
        alpha: decay rate of the moving average of the squared gradient.
        eps: added to the square root of that average, by which a step is divided.
        momentum: factor of the previous step that is added to a step.
        centered: subtract the squared average of the gradient from that of its square.
    """

    name = "rmsprop"
    alpha: Fraction = 0.99
    eps: PositiveFloat = 1e-8
    momentum: Fraction = 0.0
    centered: bool = False

    def build(self, model: nn.Module, lr: float, weight_decay: float) -> Optimizer:
        """Create torch's RMSprop."""
        groups = parameter_groups(model, lr)
        return torch.optim.RMSprop(groups, lr, self.alpha, self.eps, weight_decay, self.momentum, self.centered)


@dataclass(frozen=True)
class SGD(OptimizerSettings):
    """Stochastic gradient descent.

    Attributes:
        momentum: factor of the accumulated gradient.
        nesterov: Nesterov's momentum (1983); it requires a momentum above 0.
    """

    name = "sgd"
    momentum: Fraction = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise UserError("train.optimizer_args.nesterov: got True without a momentum, expected a momentum above 0")

    def build(self, model: nn.Module, lr: float, weight_decay: float) -> Optimizer:
        """Create torch's SGD."""
        groups = parameter_groups(model, lr)
        fused = one_kernel(model)
        return torch.optim.SGD(groups, lr, self.momentum, weight_decay=weight_decay, nesterov=self.nesterov, fused=fused)
