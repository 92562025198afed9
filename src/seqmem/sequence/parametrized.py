"""Pickling of modules whose weights :mod:`torch.nn.utils.parametrize` computes, which torch refuses."""

from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations


class PicklableParametrized(nn.Module):
    """Base of modules that parametrize their weights in their constructor.

    torch replaces the class of such a module by one that it makes at run time, which cannot be found by its name, and may
    register a local function as a hook of ``load_state_dict``. A pickle therefore holds the constructor's arguments and the
    module's content without such hooks, which the constructor registers again. Parameters keep their identity within a pickle.

    Attributes:
        built_with: positional arguments of the constructor, which a subclass sets.
    """

    built_with: tuple[Any, ...]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        content = {name: value for name, value in self.__dict__.items() if name != "_load_state_dict_pre_hooks"}
        return _build, (type_before_parametrizations(self), self.built_with), content


def _build(kind: type[nn.Module], arguments: tuple[Any, ...]) -> nn.Module:
    with torch.device("meta"):  # the content of the pickle replaces the tensors
        return kind(*arguments)
