"""State dicts with the parameter names of sequitur, the origin of these autoencoders."""

import re
from typing import Any

from torch import nn


def accept_sequitur_names(module: nn.Module, pattern: str, name: str) -> None:
    """Let ``module.load_state_dict`` also accept sequitur's parameter names.

    Args:
        module: the module whose names start where the pattern does.
        pattern: a regular expression that matches a whole name, with named groups. The group ``index``, a number, is replaced
            by its rank among the indices of all matching names: the original numbers activations along with layers.
        name: this module's name for the parameter, a format string of the groups.
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
