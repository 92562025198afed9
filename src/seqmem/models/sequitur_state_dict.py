"""State dicts with the parameter names of sequitur, the origin of these autoencoders."""

import re
from dataclasses import dataclass
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
    module.register_load_state_dict_pre_hook(_Rename(pattern, name))


@dataclass(frozen=True)
class _Rename:
    """The hook of :func:`accept_sequitur_names`; an object, since a module with a local function cannot be pickled."""

    pattern: str
    name: str

    def __call__(self, module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        compiled = re.compile(self.pattern)
        found = {key: match for key in state if key.startswith(prefix) and (match := compiled.fullmatch(key[len(prefix) :]))}
        indices = sorted({int(match["index"]) for match in found.values() if "index" in compiled.groupindex})
        for key, match in found.items():
            groups = match.groupdict()
            if "index" in groups:
                groups["index"] = str(indices.index(int(groups["index"])))
            state[prefix + self.name.format(**groups)] = state.pop(key)
