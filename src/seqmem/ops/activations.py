"""Activations by the names that configs use."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Activation = Literal["id", "tanh", "relu", "sigmoid"]

_functions: dict[str, Callable[[Tensor], Tensor]] = {
    "id": lambda x: x,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
}


def activation(name: Activation) -> Callable[[Tensor], Tensor]:
    """The function called ``name``."""
    return _functions[name]


def modrelu(x: Tensor, bias: Tensor) -> Tensor:
    """sign(x) max(|x| + b, 0) of x (..., H) and b (H,) (modReLU of Arjovsky, Shah and Bengio, 2016, for real numbers)."""
    return torch.sign(x) * torch.relu(x.abs() + bias)
