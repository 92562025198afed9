"""Answers for Hydra's completion scripts: choices of groups at any depth, also in lists; Hydra completes the other words.

A script, which ``seqmem train -sc install=bash`` prints, calls the command with ``-sc query=bash`` and the line so far in the
variable ``COMP_LINE``.
"""

import os
import re
from collections.abc import Sequence
from contextlib import suppress

from seqmem import plugins
from seqmem.cli import choices
from seqmem.cli.overrides import COMPLETION, config_folders, modules_of, parse, search, split_flags
from seqmem.errors import UserError

_program = re.compile(r"\s*(\S*python[\d.]*\s+)?\S+\s*")  # python train.py, or the name of a console script


def is_query(arguments: Sequence[str]) -> bool:
    """Return whether a command line is the question of a script."""
    asks = any(argument.startswith("query=") for argument in arguments)
    return asks and not set(COMPLETION).isdisjoint(arguments)


def answer() -> list[str] | None:
    """Return the words that can complete the last word of ``COMP_LINE``; None to leave that to Hydra.

    Hydra then searches the folders of the line's own ``--config-dir`` and plugins.
    """
    line = _program.sub("", os.environ.get("COMP_LINE", ""), count=1)
    words = line.split()
    last = words.pop() if words and not line[-1].isspace() else ""
    folders = [choices.CONFIGS]
    with suppress(UserError):  # a line that is still being typed
        flags, overrides = split_flags(words)
        plugins.find(modules_of(parse([word for word in overrides if plugins.GROUP in word])))
        folders = config_folders(flags)
        search(flags)
    key, equals, value = last.partition("=")
    group = key.lstrip("+")
    if not equals or group not in choices.groups(folders):
        return None
    before = value.rpartition(",")[0]
    given = f"{key}={before}," if before else f"{key}="
    return [word for name in choices.names(group, folders) if (word := f"{given}{name}").startswith(last)]
