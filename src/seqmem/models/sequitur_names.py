"""Weights under the names that sequitur, where these autoencoders come from, saves them."""

import re
from typing import Any

from torch import nn


def also_load(module: nn.Module, pattern: str, name: str) -> None:
    """Let ``module.load_state_dict`` take sequitur's names beside its own.

    Args:
        module: its names begin where the pattern does.
        pattern: a regular expression of a whole name there, with named groups. One called ``index`` is a number, and becomes
            its place among those of all names that match: the original numbers activations along with the layers.
        name: what the name becomes, a format of the groups.
    """
    compiled = re.compile(pattern)

    def rename(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        found = {key: match for key in state if key.startswith(prefix) and (match := compiled.fullmatch(key[len(prefix) :]))}
        indices = sorted({int(match["index"]) for match in found.values() if "index" in compiled.groupindex})
        for key, match in found.items():
            groups = match.groupdict()
            if "index" in groups:
                groups["index"] = str(indices.index(int(groups["index"])))
            state[prefix + name.format(**groups)] = state.pop(key)

    module.register_load_state_dict_pre_hook(rename)
