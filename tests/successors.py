"""Golden vectors of the successors of HiPPO: ``tests/golden/successors.npz``, see the README beside it."""

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

PATH = Path(__file__).parent / "golden/successors.npz"


class Case(NamedTuple):
    """A case: its entry of the index, and its arrays by name, float64 (a complex number is a trailing pair)."""

    settings: dict[str, Any]
    arrays: dict[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.arrays[name]

    def named(self, prefix: str) -> dict[str, Tensor]:
        """Return the arrays ``PREFIX.NAME`` by NAME: param, grad, state0, grad_state0 or state_final."""
        return {name.removeprefix(f"{prefix}."): array for name, array in self.arrays.items() if name.startswith(f"{prefix}.")}


@cache
def _all() -> dict[str, Case]:
    with np.load(PATH) as file:
        index = json.loads(str(file["index"]))
        found: dict[str, dict[str, Tensor]] = {name: {} for name in index}
        for key in file.files:
            name, _, array = key.partition("/")
            if name in found:
                found[name][array] = torch.from_numpy(file[key])
    return {name: Case(index[name], arrays) for name, arrays in found.items()}


def names(*models: str) -> list[str]:
    """Return the names of the cases of some models, those with inputs alone."""
    return [name for name, case in _all().items() if case.settings["model"] in models and case.settings.get("kind") != "init"]


def case(name: str) -> Case:
    """Return a case with tensors of its own."""
    found = _all()[name]
    return Case(found.settings, {key: array.clone() for key, array in found.arrays.items()})


def assert_near(found: Tensor, expected: Tensor, relative: float = 1e-10) -> None:
    """Compare with the largest entry of the expected array: some entries are zero in exact arithmetic."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    largest = expected.abs().max().item() if expected.numel() else 0.0
    torch.testing.assert_close(found, expected, rtol=0, atol=relative * max(largest, 1e-12))
