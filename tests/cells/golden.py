"""The original implementation's numbers, and how its cells and their parameters are called here."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from seqmem import cells
from seqmem.cells import Recurrence

_path = Path(__file__).parents[1] / "golden" / "hippo_cells.npz"
_shared = ("input_size", "hidden_size", "memory_size", "memory_order", "max_length", "dt", "theta")


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


def cell(case: str) -> Recurrence:
    """A case's cell, with the original's parameters."""
    given = cases()[case]
    arguments = {name: value for name, value in given.items() if name in _shared}
    if "reset" in given:
        arguments["reset_after"] = False
    made = cells.get("mgu" if case == "gru" else given["cell"])(**arguments).double()
    made.load_state_dict(parameters(case, "param"))
    return made


def parameters(case: str, kind: str) -> dict[str, Tensor]:
    """A case's parameters ("param") or their gradients ("grad") under this project's names and layout."""
    given = {name.removeprefix(f"{kind}."): array for name, array in arrays(case).items() if name.startswith(f"{kind}.")}
    channels = cases()[case]["input_size"]
    if "W_uxh.weight" in given:
        return _of_memory(given, channels - (case == "tlsi"))
    if "W_reset.W_g.weight" in given:
        return _of_reset(given, channels, kind)
    if "W_g.W_g.weight" in given:
        return _of_gate(given, channels)
    return {f"{part}_{name}": given[f"W_{name}.{part}"] for part in ("weight", "bias") for name in ("hx", "hh")}


def _of_memory(given: dict[str, Tensor], channels: int) -> dict[str, Tensor]:
    """Rows of the candidate, then of the gate; the gate reads [x; m; h]."""
    candidate, gate = given["W_hxm.weight"], given["W_gxm.W_g.weight"]
    read = candidate.shape[1]
    found = {
        "weight_ux": given["W_uxh.weight"][:, :channels],
        "weight_uh": given["W_uxh.weight"][:, channels:],
        "weight_hx": torch.cat([candidate[:, :channels], gate[:, :channels]]),
        "weight_hm": torch.cat([candidate[:, channels:], gate[:, channels:read]]),
    }
    if "W_um" in given:
        found["weight_um"] = given["W_um"]
    if "W_hh.weight" in given:
        found["weight_hh"] = torch.cat([given["W_hh.weight"], gate[:, read:]])
    if "W_uxh.bias" in given:
        found["bias_u"] = given["W_uxh.bias"]
        found["bias_h"] = torch.cat([given["W_hxm.bias"], given["W_gxm.W_g.bias"]])
    return found


def _of_gate(given: dict[str, Tensor], channels: int) -> dict[str, Tensor]:
    """Rows of the candidate, then of the gate, which reads [x; h]. The candidate of mrnn does not read h."""
    gate = given["W_g.W_g.weight"]
    found = {
        "weight_hx": torch.cat([given["W_hx.weight"], gate[:, :channels]]),
        "bias_hx": torch.cat([given["W_hx.bias"], given["W_g.W_g.bias"]]),
    }
    if "W_hh.weight" not in given:
        return {**found, "weight_gh": gate[:, channels:]}
    return {**found, "weight_hh": torch.cat([given["W_hh.weight"], gate[:, channels:]]), "bias_hh": given["W_hh.bias"]}


def _of_reset(given: dict[str, Tensor], channels: int, kind: str) -> dict[str, Tensor]:
    """torch.nn's rows r, z, n. There h = (1 - z) n + z h, here h = (1 - g) h + g n: z = 1 - g = sigmoid(-...).

    The gates have one bias in the original: here the hidden state's is zero, with the gradient of the input's.
    """
    reset, gate = given["W_reset.W_g.weight"], -given["W_g.W_g.weight"]
    biases = torch.cat([given["W_reset.W_g.bias"], -given["W_g.W_g.bias"]])
    return {
        "weight_ih": torch.cat([reset[:, :channels], gate[:, :channels], given["W_hx.weight"]]),
        "weight_hh": torch.cat([reset[:, channels:], gate[:, channels:], given["W_hh.weight"]]),
        "bias_ih": torch.cat([biases, given["W_hx.bias"]]),
        "bias_hh": torch.cat([torch.zeros_like(biases) if kind == "param" else biases, given["W_hh.bias"]]),
    }
