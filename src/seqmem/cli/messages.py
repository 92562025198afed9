"""An error, told in one line."""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from seqmem.cli.overrides import CONFIGS, GROUPS, SWITCHES, composed_config, split_flags
from seqmem.errors import UserError, not_installed, suggestion

# What a plugin of Hydra's comes with, by where its config would lie.
_extras = {
    "hydra/launcher/joblib": "joblib",
    "hydra/launcher/submitit_local": "slurm",
    "hydra/launcher/submitit_slurm": "slurm",
    "hydra/sweeper/optuna": "optuna",
}


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the program, or the job of a sweep, with one line on stderr if an error arises within."""
    wants_traceback = any(re.fullmatch(r"\+*traceback=(true|yes|on|1)", argument, re.IGNORECASE) for argument in sys.argv)
    try:
        yield
    except KeyboardInterrupt:
        _end("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read our output has gone
        sys.exit(1)
    except Exception as error:
        if wants_traceback:
            raise
        message, status = described(error)
        hydra = HydraConfig.instance().cfg
        if hydra is None or hydra.hydra.mode != RunMode.MULTIRUN or "num" not in hydra.hydra.job:
            _end(message, status)
        print(f"error: job {hydra.hydra.job.num} ({hydra.hydra.job.override_dirname}): {message}", file=sys.stderr)


def described(error: Exception) -> tuple[str, int]:
    """What to print of an error, in one line of bearable length, and the exit status."""
    message, status = _explained(error)
    message = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in message)
    return message if len(message) <= 1000 else f"{message[:600]} ... {message[-300:]}", status


def _explained(error: Exception) -> tuple[str, int]:
    if isinstance(error, UserError | HydraException | OmegaConfBaseException):
        return explain(error, sys.argv[1:]), 2
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'output'}: {error.strerror}", 2
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, MemoryError) or "allocate memory" in reason or "out of memory" in reason:
        return f"not enough memory for this data set or model ({reason})", 2
    return f"{reason} (probably a fault of seqmem's; traceback=True shows where it arose)", 1


def explain(error: Exception, arguments: Sequence[str]) -> str:
    """What is wrong with a command line, in one line with the nearest valid choice."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file in _extras:
        extra = _extras[error.missing_cfg_file]
        return f"{error.missing_cfg_file} {not_installed(extra)}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.removesuffix(".yaml").partition("/")
        choices = [option for option in error.options or () if option != "default"]
        if "/" in choice:  # Hydra gives the options of the group's own folder alone
            folder = CONFIGS / group
            choices = sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.glob("*/*.yaml"))
        return f"{group}={choice}: there is no {group} of that name{suggestion(choice, choices)}"
    if isinstance(error, OverrideParseException):
        return f"cannot read '{error.override}': expected KEY=VALUE, with quotes around a VALUE of several words"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    several = re.match(r"Ambiguous value for argument '(.*)'", lines[0])
    if several:
        return f"{several.group(1)}: got several values; add -m to try each of them"
    refused = re.search(r"Could not override[^']*'(.*?)'", lines[0])
    key = getattr(error.__cause__, "full_key", None) or (refused.group(1).partition("@")[0] if refused else None)
    if key and (near := _nearest_key(key, arguments)) is not None:
        return f"there is no key '{key}'{near}"
    key = getattr(error, "full_key", None)
    return f"{key}: {lines[0]}" if key and key not in lines[0] else lines[0]


def _nearest_key(key: str, arguments: Sequence[str]) -> str | None:
    """What to say of a key that does not exist: the nearest that does; None if the key exists after all."""
    flags, overrides = split_flags(arguments)
    selecting = [override for override in overrides if override.partition("=")[0] in GROUPS and "," not in override]
    try:
        node: Any = composed_config([*(flag for flag in flags if flag not in SWITCHES), *selecting])
    except (HydraException, OmegaConfBaseException):
        return ""
    *above, last = key.lstrip("+~").split(".")
    parents: list[str] = []
    for part in above:
        if not isinstance(node, DictConfig) or part not in node:
            last = part
            break
        node = node[part]
        parents.append(part)
    if not isinstance(node, DictConfig):
        return f"; {'.'.join(parents)} holds a single value"
    if last in node:
        return None
    found = suggestion(
        last, [str(name) for name in node if name != "presets"] + ([] if parents else ["experiment", "debug", "scale"])
    )
    return found.replace("mean '", f"mean '{'.'.join([*parents, ''])}") if parents else found


def _end(message: str, status: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)
