"""A command line's flags and overrides, and what Hydra composes of them."""

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
_no_name = re.compile(
    r"\s*([-+]?(\d[\d_]*\.?|\.\d)[\d_]*(e[-+]?\d+)?|[-+]?(inf|nan)|true|false|null|\[.*[\[{].*|{.*)\s*", re.IGNORECASE
)


def translate(arguments: Sequence[str]) -> list[str]:
    """Put flags first, and rewrite ``model.cell=NAME`` as ``model=NAME``, the group that holds all arguments of the cell.

    Raises:
        UserError: both are given and differ, or a flag does not exist.
    """
    flags, overrides = split_flags(arguments)
    overrides = _with_cell_as_group(overrides)
    check_overrides(overrides)
    return [*flags, *overrides]


def split_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
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
            raise UserError(f"there is no flag {argument}{suggestion(argument, _flags)}")
    if flags and flags[-1] in _switches_with_value:
        raise UserError(f"{flags[-1]}: a value is required after it")
    shown = _value_of(flags, "--cfg", "-c")
    if shown is not None and shown not in _shown:
        raise UserError(f"--cfg: there is no config '{shown}'{suggestion(shown, _shown)}")
    if shown is not None and {"-m", "--multirun"} & set(flags):
        raise UserError("--cfg shows the config of one job; leave out -m")
    if shown is None and "--resolve" in flags:
        raise UserError("--resolve goes with --cfg job")
    return flags, overrides


def _value_of(flags: Sequence[str], *names: str) -> str | None:
    return next((value for flag, value in pairwise(flags) if flag in names), None)


def check_overrides(overrides: Sequence[str]) -> None:
    for override in overrides:
        key, equals, value = override.partition("=")
        if override.startswith("="):
            raise UserError(f"cannot read '{override}': expected KEY=VALUE")
        if (key in SECTIONS and equals and not re.match(r"[A-Za-z_]", value)) or (value == "null" and key in SECTIONS):
            raise UserError(f"{key}: got {value or 'nothing'}, expected the name of a file in cfg/{key}/")
        group = key.lstrip("+~")
        if (group in GROUPS or "/" in group) and any(map(_no_name.fullmatch, [value, *value.split(",")])):
            raise UserError(f"{key}: got {value}, expected the name of a file of the group, or a list of names")
        if re.search(r"\d{1000}", override):
            raise UserError(f"{key}: got a number of more than a thousand digits")
        if key.lstrip("+~").startswith(("hydra.run", "hydra.sweep.", "hydra.output_subdir")):
            raise UserError(f"{key}: run folders are made by seqmem; give output_dir=FOLDER")


def _with_cell_as_group(arguments: list[str]) -> list[str]:
    cells = [argument.partition("=")[2] for argument in arguments if argument.lstrip("+").startswith("model.cell=")]
    groups = [argument.partition("=")[2] for argument in arguments if argument.startswith("model=")]
    if not cells:
        return arguments
    different = sorted({*cells, *groups})
    if len(different) > 1:
        raise UserError(f"model= and model.cell= mean the same, got {' and '.join(different)}; give one of them")
    others = [argument for argument in arguments if not argument.lstrip("+").startswith(("model.cell=", "model="))]
    return [*others, f"model={cells[0]}"]


def composed_config(arguments: Sequence[str], with_hydra: bool = False) -> DictConfig:
    flags, overrides = split_flags(arguments)
    own_groups = _value_of(flags, "--config-dir", "-cd")
    if own_groups is not None:
        if not Path(own_groups).is_dir():
            raise UserError(f"--config-dir: there is no folder {own_groups}")
        overrides = [*overrides, f"hydra.searchpath=[file://{Path(own_groups).resolve()}]"]
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
        return hydra_compose("config", overrides=overrides, return_hydra_config=with_hydra)
