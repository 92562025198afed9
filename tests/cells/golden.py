"""The original implementation's numbers, and how its parameters are called here."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_path = Path(__file__).parents[1] / "golden" / "hippo_cells.npz"


@cache
def cases() -> dict[str, dict]:
    """Constructor arguments of the original's cell for each case."""
    with np.load(_path) as archive:
        return json.loads(str(archive["index"]))


def arrays(case: str) -> dict[str, Tensor]:
    """A case's float64 arrays."""
    with np.load(_path) as archive:
        return {
            name.partition("/")[2]: torch.from_numpy(archive[name]) for name in archive.files if name.startswith(f"{case}/")
        }


def parameters(data: dict[str, Tensor], kind: str, input_size: int) -> dict[str, Tensor]:
    """A case's parameters ("param") or their gradients ("grad") under this project's names and layout."""
    given = {name.removeprefix(f"{kind}."): array for name, array in data.items() if name.startswith(f"{kind}.")}
    if "W_uxh.weight" not in given:
        names = {"W_hx.weight": "weight_hx", "W_hx.bias": "bias_hx", "W_hh.weight": "weight_hh", "W_hh.bias": "bias_hh"}
        return {names[name]: array for name, array in given.items()}
    joint = torch.cat([given["W_hxm.weight"], given["W_gxm.W_g.weight"]])
    return {
        "weight_ux": given["W_uxh.weight"][:, :input_size],
        "weight_uh": given["W_uxh.weight"][:, input_size:],
        "bias_u": given["W_uxh.bias"],
        "weight_hx": joint[:, :input_size],
        "weight_hm": joint[:, input_size:],
        "bias_h": torch.cat([given["W_hxm.bias"], given["W_gxm.W_g.bias"]]),
    }
