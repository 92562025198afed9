"""``python train.py --help``: every choice of every group, and every key with its value and what it means."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from string import Template
from typing import Any

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seqmem.cli import choices
from seqmem.cli.messages import explain
from seqmem.cli.overrides import HELP, SECTIONS, SWITCHES, composed_config, config_folders, split_flags
from seqmem.errors import UserError

_column = 40  # of the comments
_top = choices.CONFIGS / "config.yaml"


def is_requested(flags: Sequence[str]) -> bool:
    """Return whether the flags request this text."""
    return not set(HELP).isdisjoint(flags)


def text(arguments: Sequence[str]) -> str:
    """Return the text for a command line, whose choices determine the keys and whose overrides determine the values.

    Raises:
        UserError: the overrides do not compose.
    """
    flags, overrides = split_flags(arguments)
    composing = [*(flag for flag in flags if flag not in SWITCHES), *overrides]
    try:
        composed = composed_config(composing, with_hydra=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, arguments)) from None
    folders = config_folders(flags)
    chosen = composed.hydra.runtime.choices
    comments = choices.comments(_top)
    for section in SECTIONS:
        path = choices.file(section, chosen[section], folders)
        found = choices.comments(path) if path else {}
        comments |= {(section, *keys): comment for keys, comment in found.items()}
    template = Template(composed.hydra.help.template)
    config: Any = OmegaConf.to_container(composed, resolve=False)
    del config["hydra"]
    groups = [f"{group}: {', '.join(choices.names(group, folders))}" for group in choices.groups(folders)]
    content = template.substitute(
        APP_CONFIG_GROUPS="\n".join(groups),
        CONFIG="\n".join(_lines(config, comments)),
    )
    return content.replace("python train.py", sys.argv[0]) if sys.argv[0].startswith("seqmem ") else content


def _lines(config: Mapping[str, Any], comments: choices.Comments, path: tuple[str, ...] = ()) -> Iterator[str]:
    """A line of YAML for each key, with its comment."""
    for name, value in config.items():
        here = (*path, str(name))
        nested = isinstance(value, dict) and value
        shown = "" if nested else f" {choices.on_one_line(value)}"
        line = f"{'  ' * len(path)}{name}:{shown}"
        comment = comments.get(here)
        yield f"{line.ljust(_column - 1)} # {comment}" if comment else line
        if nested:
            yield from _lines(value, comments, here)
