"""Flags and overrides of a command line, and the config that Hydra composes from them."""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from seqmem.errors import UserError, suggestion

CONFIGS = Path(__file__).parents[3] / "cfg"
SECTIONS = ("dataset", "model", "train", "runner")
GROUPS = ("dataset", "model", "train", "runner", "experiment", "debug", "scale", "hydra")
SWITCHES = ("--help", "-h", "--hydra-help", "--version", "--resolve", "--multirun", "-m", "--shell-completion", "-sc")
_shown = ("job", "hydra", "all")
_switches_with_value = ("--cfg", "-c", "--config-dir", "-cd")
_flags = (*SWITCHES, *_switches_with_value)
_open_sections = re.compile(r"(model\.mixer_args|train\.(optimizer|schedule)_args)[.=]")
_no_name = re.compile(
    r"\s*([-+]?(\d[\d_]*\.?|\.\d)[\d_]*(e[-+]?\d+)?|[-+]?(inf|nan)|true|false|null|\[.*[\[{].*|{.*)\s*", re.IGNORECASE
)


def translate(arguments: Sequence[str]) -> list[str]:
    """Put flags first, and rewrite overrides that Hydra would refuse.

    ``model.cell=NAME`` becomes ``model=NAME``, the group that holds the cell's arguments. Arguments of a mixer, an optimiser or
    a schedule are added with ``++``, since the files of cfg/ do not list them; the signature checks them later.

    Raises:
        UserError: two different models, or an unknown flag.
    """
    flags, overrides = split_flags(arguments)
    overrides = [_with_new_keys_allowed(override) for override in _with_cell_as_group(overrides)]
    check_overrides(overrides)
    return [*flags, *overrides]


def split_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate flags, each followed by its value if it takes one, from overrides.

    Raises:
        UserError: an unknown flag, one without its value, or flags that exclude each other.
    """
    flags: list[str] = []
    overrides: list[str] = []
    for argument in arguments:
        flag, _, value = argument.partition("=")
        if flags and flags[-1] in _switches_with_value:
            flags.append(argument)
        elif not argument.startswith("-"):
            overrides.append(argument)
        elif flag in _switches_with_value and value:
            flags += [flag, value]
        elif argument in _flags:
            flags.append(argument)
        else:
            raise UserError(f"{argument}: no such flag{suggestion(argument, _flags)}")
    _check_flags(flags)
    return flags, overrides


def is_multirun(flags: Sequence[str]) -> bool:
    """Return whether the flags request a sweep."""
    return not {"-m", "--multirun"}.isdisjoint(flags)


def shows_config(flags: Sequence[str]) -> bool:
    """Return whether the flags request the config instead of a run."""
    return not {"--cfg", "-c"}.isdisjoint(flags)


def check_overrides(overrides: Sequence[str]) -> None:
    """Check for the mistakes that Hydra explains badly or not at all.

    Raises:
        UserError: an override without a key, a group without a name, an endless number, or a folder that seqmem chooses.
    """
    for override in overrides:
        key, equals, value = override.partition("=")
        if override.startswith("="):
            raise UserError(f"got '{override}', expected KEY=VALUE")
        if (key in SECTIONS and equals and not re.match(r"[A-Za-z_]", value)) or (value == "null" and key in SECTIONS):
            raise UserError(f"{key}: got {value or 'nothing'}, expected the name of a file in cfg/{key}/")
        group = key.lstrip("+~")
        if (group in GROUPS or "/" in group) and any(map(_no_name.fullmatch, [value, *value.split(",")])):
            raise UserError(f"{key}: got {value}, expected the name of a file of the group, or a list of names")
        if re.search(r"\d{1000}", override):
            raise UserError(f"{key}: got a number of over a thousand digits, expected a shorter one")
        if group.startswith(("hydra.run", "hydra.sweep.", "hydra.output_subdir")):
            raise UserError(f"{key}: seqmem names the run folders; give output_dir=FOLDER")


def composed_config(arguments: Sequence[str], with_hydra: bool = False) -> DictConfig:
    """The config that Hydra composes from cfg/, folders of ``--config-dir`` and overrides.

    Args:
        arguments: flags and overrides.
        with_hydra: keep Hydra's own section.

    Raises:
        UserError: the folder of ``--config-dir`` does not exist.
        HydraException: the overrides do not compose.
    """
    flags, overrides = split_flags(arguments)
    own_groups = _value_of(flags, "--config-dir", "-cd")
    if own_groups is not None:
        if not Path(own_groups).is_dir():
            raise UserError(f"--config-dir: got {own_groups}, expected a folder that exists")
        overrides = [*overrides, f"hydra.searchpath=[file://{Path(own_groups).resolve()}]"]
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
        return hydra_compose("config", overrides=overrides, return_hydra_config=with_hydra)


def _check_flags(flags: Sequence[str]) -> None:
    if flags and flags[-1] in _switches_with_value:
        raise UserError(f"{flags[-1]}: got no value, expected one after it")
    shown = _value_of(flags, "--cfg", "-c")
    if shown is None and "--resolve" in flags:
        raise UserError("--resolve: got no --cfg, expected --cfg job --resolve")
    if shown is not None and shown not in _shown:
        raise UserError(f"--cfg: got {shown}, expected job, hydra or all{suggestion(shown, _shown)}")
    if shown is not None and is_multirun(flags):
        raise UserError("--cfg: got -m with it, expected a single job; leave out -m")


def _value_of(flags: Sequence[str], *names: str) -> str | None:
    return next((value for flag, value in pairwise(flags) if flag in names), None)


def _with_new_keys_allowed(override: str) -> str:
    return f"++{override}" if _open_sections.match(override) else override


def _with_cell_as_group(arguments: list[str]) -> list[str]:
    cells = [argument.partition("=")[2] for argument in arguments if argument.lstrip("+").startswith("model.cell=")]
    groups = [argument.partition("=")[2] for argument in arguments if argument.startswith("model=")]
    if not cells:
        return arguments
    different = sorted({*cells, *groups})
    if len(different) > 1:
        raise UserError(f"model.cell: got {' and '.join(different)}, expected one name; model=NAME means the same")
    others = [argument for argument in arguments if not argument.lstrip("+").startswith(("model.cell=", "model="))]
    return [*others, f"model={cells[0]}"]
