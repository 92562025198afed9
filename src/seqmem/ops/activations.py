"""Activation functions by their names in configs."""

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
    """Return the activation function of a name."""
    return _functions[name]


def modrelu(x: Tensor, bias: Tensor) -> Tensor:
    """Compute modReLU, sign(x) max(|x| + b, 0), of real x (..., H) and bias b (H,) (Arjovsky, Shah and Bengio, 2016)."""
    return torch.sign(x) * torch.relu(x.abs() + bias)
