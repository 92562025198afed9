"""Flags and overrides of a command line, and the config that Hydra composes from them."""

import re
import shlex
import sys
from collections.abc import Sequence
from itertools import pairwise, zip_longest
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser, create_functions
from hydra.core.override_parser.types import Glob, Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig

from seqmem import plugins
from seqmem.cli import choices
from seqmem.cli.choices import CONFIGS, GROUPS
from seqmem.errors import UserError, meant, nearest, suggestion

SECTIONS = ("dataset", "model", "train", "runner")
HELP = ("--help", "-h")
MULTIRUN = ("--multirun", "-m")
CONFIG_DIR = ("--config-dir", "-cd")
COMPLETION = ("--shell-completion", "-sc")
SWITCHES = (*HELP, "--hydra-help", "--version", "--resolve", *MULTIRUN, *COMPLETION)
_shown = ("job", "hydra", "all")
_switches_with_value = ("--cfg", "-c", *CONFIG_DIR)
_flags = (*SWITCHES, *_switches_with_value)
_open_sections = re.compile(
    r"(model\.mixer_args|model\.cell_args\.measure_args|train\.(optimizer|schedule)_args|hydra\.sweeper\.(sampler|pruner)_args)[.=]"
)
_no_name = re.compile(
    r"\s*([-+]?(\d[\d_]*\.?|\.\d)[\d_]*(e[-+]?\d+)?|[-+]?(inf|nan)|true|false|null|\[.*[\[{].*|{.*)\s*", re.IGNORECASE
)


def translate(arguments: Sequence[str]) -> list[str]:
    """Put flags first, and rewrite overrides that Hydra would refuse.

    ``model.cell=NAME`` becomes ``model=NAME``, the group that holds the cell's arguments. Arguments of a mixer, a measure, an
    optimiser or a schedule are added with ``++``, since the files of cfg/ do not list them; the signature checks them later.
    ``glob(leg*)`` becomes the list of matching choices, those of subfolders included. ``~dataset.KEY`` also drops a key whose
    value is null, which Hydra takes for a missing one.

    Raises:
        UserError: two different models, an unknown flag, or an override that Hydra cannot parse.
    """
    flags, overrides = split_flags(arguments)
    plugins.find(modules_of(parse([override for override in overrides if plugins.GROUP in override])))
    return [*flags, *translate_overrides(overrides, config_folders(flags))]


def translate_overrides(overrides: Sequence[str], folders: Sequence[Path] = (CONFIGS,)) -> list[str]:
    """Rewrite overrides as :func:`translate` does.

    Args:
        overrides: of the command line, or of a sweep's parameters in a config.
        folders: that hold the config groups.
    """
    overrides = [_with_new_keys_allowed(override) for override in _with_cell_as_group(overrides)]
    check_overrides(overrides)
    parsed = parse(overrides)
    for override in parsed:
        _refuse_sweep_of_hydra(override)
    return [line for override in parsed for line in (*_set_before_dropped(override), _without_glob(override, folders))]


def split_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate flags, each followed by its value if it takes one, from overrides.

    Raises:
        UserError: an unknown flag, one without its value, or flags that exclude each other.
    """
    flags: list[str] = []
    overrides: list[str] = []
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue="-"):
        flag, _, value = argument.partition("=")
        if flags and flags[-1] in _switches_with_value:
            flags.append(argument)
        elif not argument.startswith("-"):
            overrides.append(argument)
        elif flag in _switches_with_value and value:
            flags += [flag, value]
        elif argument in _flags:
            flags.append(argument)
        elif value:
            raise UserError(f"{argument}: no such flag; keys have no dashes: {argument.lstrip('-')}")
        else:
            near = suggestion(argument, _flags)
            is_key = argument.startswith("--") and not following.startswith("-") and "=" not in following
            key = f"; keys have no dashes: {argument.lstrip('-')}={following}"
            raise UserError(f"{argument}: no such flag{key if is_key and not near.endswith('?') else near}")
    _check_flags(flags)
    return flags, overrides


def own_overrides(overrides: Sequence[str]) -> list[str]:
    """Return translated overrides without those that :func:`translate` put before a dropped key.

    >>> own_overrides(["seed=0", "model.dropout=0", "~model.dropout"])
    ['seed=0', '~model.dropout']
    """
    pairs = zip_longest(overrides, overrides[1:], fillvalue="")
    return [override for override, following in pairs if f"~{override}" != f"{following.partition('=')[0]}=0"]


def is_multirun(flags: Sequence[str]) -> bool:
    """Return whether the flags request a sweep."""
    return not set(MULTIRUN).isdisjoint(flags)


def shows_config(flags: Sequence[str]) -> bool:
    """Return whether the flags request the config instead of a run."""
    return not {"--cfg", "-c"}.isdisjoint(flags)


def config_folders(flags: Sequence[str]) -> list[Path]:
    """Return the folders that hold config groups, in the order of the search: of ``--config-dir``, of plugins, and cfg/.

    Raises:
        UserError: the folder of ``--config-dir`` does not exist, or replaces the whole config.
    """
    given = _value_of(flags, *CONFIG_DIR)
    if given is None:
        return [*plugins.folders(), CONFIGS]
    if not Path(given).is_dir():
        raise UserError(f"--config-dir: got {given}, expected a folder that exists")
    if Path(given, "config.yaml").exists():
        groups = ", ".join(f"{group}/" for group in GROUPS[:5])
        raise UserError(
            f"--config-dir: got {given}, whose config.yaml is not a group; expected a folder that holds {groups} ..."
        )
    return [Path(given).resolve(), *plugins.folders(), CONFIGS]


def search(flags: Sequence[str]) -> None:
    """Let Hydra search the folders of :func:`config_folders`."""
    choices.own_folders[:] = reversed(config_folders(flags)[:-1])


def check_overrides(overrides: Sequence[str]) -> None:
    """Check for the mistakes that Hydra explains badly or not at all.

    Raises:
        UserError: an override without a key, a group without a name, an endless number, or a folder that seqmem chooses.
    """
    for override in overrides:
        key, equals, value = override.partition("=")
        if override.startswith("="):
            raise UserError(f"got '{override}', expected KEY=VALUE without blanks around the equals sign")
        if (key in SECTIONS and equals and not re.match(r"[A-Za-z_]", value)) or (value == "null" and key in SECTIONS):
            raise UserError(f"{key}: got {value or 'nothing'}, expected the name of a file in cfg/{key}/")
        group = key.lstrip("+~")
        if (group in GROUPS or "/" in group) and any(map(_no_name.fullmatch, [value, *value.split(",")])):
            raise UserError(f"{key}: got {value}, expected the name of a file of the group, or a list of names")
        if re.search(r"\d{1000}", override):
            raise UserError(f"{key}: got a number of over a thousand digits, expected a shorter one")
        if group.startswith("hydra.output_subdir"):
            raise UserError(f"{key}: got {value}, expected no such key: each trial's folder has its config.yaml")


def parse(overrides: Sequence[str]) -> list[Override]:
    """Parse overrides with Hydra's grammar.

    Raises:
        UserError: one cannot be parsed; the message has the spelling that can, if quotes are all that is missing.
    """
    parser = OverridesParser.create()
    return [_parsed(parser, override) for override in overrides]


def in_quotes(key: str, text: str) -> str:
    """Return an override that sets a key to any text, as a word for a shell."""
    return shlex.quote(f"{key}={QuotedString(text, Quote.double).with_quotes()}")


def modules_of(overrides: Sequence[Override]) -> list[str]:
    """Return the modules that ``seqmem.plugins=[MODULE]`` names; a different value is refused later."""
    values = [override.value() for override in overrides if override.key_or_group == plugins.GROUP]
    return [name for value in values if isinstance(value, list) for name in value if isinstance(name, str)]


def is_group(override: Override) -> bool:
    """Return whether an override chooses a file of a config group."""
    return override.key_or_group in GROUPS or "/" in override.key_or_group


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
    search(flags)
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


def _parsed(parser: OverridesParser, override: str) -> Override:
    key, _, value = override.partition("=")
    try:
        [parsed] = parser.parse_overrides([override])
    except HydraException as error:
        raise UserError(_unreadable(parser, override, str(error))) from None
    except RecursionError:
        raise UserError(f"{key}: got brackets within brackets, expected fewer of them") from None
    except AttributeError:
        if not sys.flags.optimize:
            raise
        # Hydra's parser advances within assert statements, which python -O leaves out.
        raise UserError(
            f"{key}: got {value}, which Hydra cannot read under PYTHONOPTIMIZE or python -O; unset it, or list the values"
        ) from None
    return parsed


def _unreadable(parser: OverridesParser, override: str, reason: str) -> str:
    """Explain why Hydra cannot parse an override.

    Args:
        parser: Hydra's parser.
        override: of the command line.
        reason: Hydra's own explanation.
    """
    key, equals, value = override.partition("=")
    expected = f"got '{override}', expected KEY=VALUE"
    if value.endswith(","):
        return f"{expected}; values that commas separate have no blanks between them"
    if not equals:
        owners = [group for group in GROUPS if override in choices.names(group)]
        return expected + (meant([f"{group}={override}" for group in owners]) if owners else "")
    function = re.match(r"\s*(\w+)\(", value)
    if function and "Unknown function" in reason:
        near = nearest(function[1], create_functions().functions)
        if near:
            return f"{key}: got {value}, but no function {function[1]} exists{meant([near])}"
    failed = re.search(r"while evaluating .*?: (.*)", reason)
    if failed and "Unknown function" not in reason:
        return f"{key}: got {value}, whose arguments are wrong: {failed[1]}"
    if value.startswith("~/"):
        return f"{expected}; Hydra and many shells do not replace ~ here: {key}=$HOME{value[1:]}"
    word = in_quotes(key, value)
    try:
        parser.parse_overrides(shlex.split(word))
    except HydraException:
        return expected
    return f"{expected}; a VALUE with such characters takes two pairs of quotes: {word}"


def _refuse_sweep_of_hydra(override: Override) -> None:
    if override.is_hydra_override() and override.is_sweep_override():
        key, _, value = (override.input_line or "").partition("=")
        as_text = f"; as one text: {in_quotes(key, value)}" if not is_group(override) else ""
        raise UserError(f"{key}: got several values, expected one, since a sweep cannot change Hydra's own settings{as_text}")


def _without_glob(override: Override, folders: Sequence[Path]) -> str:
    """The override with the names of all matching choices instead of ``glob(PATTERN)``."""
    line = override.input_line or ""
    pattern = override.value()
    if not isinstance(pattern, Glob):
        return line
    key, _, value = line.partition("=")
    if not is_group(override):
        raise UserError(f"{key}: got {value}, but glob() only chooses files of a group, such as model or experiment")
    known = choices.names(override.key_or_group, folders)
    found = pattern.filter(known)
    if not found:
        deeper = Glob([f"*/{part}" for part in pattern.include], pattern.exclude)
        near = meant([f"glob({deeper.include[0]})"]) if deeper.filter(known) else suggestion(pattern.include[0], known)
        raise UserError(f"{key}: got {value}, which matches no choice{near}")
    return f"{key}={','.join(found)}"


def _set_before_dropped(override: Override) -> list[str]:
    """Return an override that gives a dropped key a value first, whatever it has: Hydra cannot drop one that is null."""
    dropped = override.is_delete() and not is_group(override) and override.value() is None
    return [f"{override.key_or_group}=0"] if dropped and "." in override.key_or_group else []


def _with_new_keys_allowed(override: str) -> str:
    return f"++{override}" if _open_sections.match(override) else override


def _with_cell_as_group(arguments: Sequence[str]) -> list[str]:
    cells = [argument.partition("=")[2] for argument in arguments if argument.lstrip("+").startswith("model.cell=")]
    groups = [argument.partition("=")[2] for argument in arguments if argument.startswith("model=")]
    if not cells:
        return list(arguments)
    different = sorted({*cells, *groups})
    if len(different) > 1:
        raise UserError(f"model.cell: got {' and '.join(different)}, expected one name; model=NAME means the same")
    others = [argument for argument in arguments if not argument.lstrip("+").startswith(("model.cell=", "model="))]
    return [*others, f"model={cells[0]}"]
