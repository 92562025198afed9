"""One-line error messages and exit statuses."""

import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seqmem.cli import hints
from seqmem.cli.overrides import GROUPS, SWITCHES, composed_config, config_folders, in_quotes, parse, split_flags
from seqmem.errors import DataWarning, UserError, not_installed, suggestion
from seqmem.io import interrupts
from seqmem.io.terminal import described, exit_if_output_closed, flush_output, message_of, one_line
from seqmem.plugins import PluginWarning

# The extra of pyproject.toml that installs each of Hydra's plugins, by the plugin's config file.
_extras = {
    "hydra/launcher/joblib": "joblib",
    "hydra/launcher/submitit_local": "slurm",
    "hydra/launcher/submitit_slurm": "slurm",
    "hydra/sweeper/optuna": "optuna",
}
# Groups whose choices have different keys.
_with_choices = ("dataset", "model", "runner")

_usual_format = warnings.formatwarning


class _Ended(SystemExit):
    """The end of the program after its message."""


@contextmanager
def one_line_errors(resumes: bool = False) -> Iterator[None]:
    """End the program, or the job of a sweep, with one line on stderr if an error arises within.

    Args:
        resumes: after an interrupt, the same command resumes.
    """
    warnings.formatwarning = _format_warning
    try:
        yield
        flush_output()
    except _Ended:
        raise
    except BaseException as error:
        if interrupts.received() is not None or isinstance(error, KeyboardInterrupt | interrupts.Interrupted):
            if interrupts.in_worker():
                return  # the launcher's other workers save their checkpoints, and the command prints the line
            _exit(f"interrupted{'; the same command resumes' if resumes else ''}", interrupts.status())
        if not isinstance(error, Exception):
            raise
        _report(error)


def _report(error: Exception) -> None:
    """Print the line of an error, and end the program unless a sweep has further jobs."""
    exit_if_output_closed(error)
    if any(re.fullmatch(r"\+*traceback=(true|yes|on|1)", argument, re.IGNORECASE) for argument in sys.argv):
        raise error
    message, status = describe(error)
    hydra: Any = HydraConfig.instance().cfg
    if hydra is None or hydra.hydra.mode != RunMode.MULTIRUN or "num" not in hydra.hydra.job:
        _exit(message, status)
    print(f"error: job {hydra.hydra.job.num} ({hydra.hydra.job.override_dirname}): {message}", file=sys.stderr)


def describe(error: Exception) -> tuple[str, int]:
    """Return the message of an error in one printable line of at most 1,000 characters, and the exit status."""
    message, status = _message_and_status(error)
    return one_line(message), status


def explain(error: Exception, arguments: Sequence[str]) -> str:
    """Return what is wrong with a command line, in one line with the nearest valid choice."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _explain_choice(error.missing_cfg_file, error.options or (), arguments)
    if isinstance(error, OverrideParseException):
        return _explain_unparsed(error)
    return _explain_key(error, arguments)


def _message_and_status(error: Exception) -> tuple[str, int]:
    if isinstance(error, UserError | HydraException | OmegaConfBaseException):
        return explain(error, sys.argv[1:]), 2
    message = message_of(error)
    if message is not None:
        return message, 2
    return f"{described(error)} (probably a bug in seqmem; traceback=True shows where)", 1


def _explain_choice(file: str, options: Sequence[str], arguments: Sequence[str]) -> str:
    """Explain that a group, the folder of ``file``, has no such choice."""
    if file in _extras:
        return f"{file} {not_installed(_extras[file])}"
    name = file.removesuffix(".yaml")
    if name.startswith("hydra/"):
        group, _, choice = name.rpartition("/")
        choices = [option for option in options if option != "default"]
        return f"{group}: got {choice}, expected a choice of Hydra or of its plugins{suggestion(choice, choices)}"
    group, _, choice = name.partition("/")
    flags, _ = split_flags(arguments)
    near = hints.unknown_choice(group, choice, config_folders(flags))
    return f"{group}: got {choice}, expected the name of a file in cfg/{group}/{near}"


def _explain_key(error: Exception, arguments: Sequence[str]) -> str:
    """Explain an error of Hydra or OmegaConf, most often a key that does not exist."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    several = re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(.*?)'(?: requires --multirun)?$", lines[0])
    if several:
        return _explain_several(several[1])
    if lines[0].startswith("Error in call to target") and len(lines) > 1:
        return f"{lines[0].rstrip(':')}: {lines[1]}"
    refused = re.search(r"Could not override[^']*'(.*?)'", lines[0])
    given = refused[1].partition("@")[0] if refused else ""
    found = getattr(error.__cause__, "full_key", None) or ""
    key = given if given.startswith(found) else found  # Hydra stops at the first part that does not exist
    if key and (unknown := _explain_unknown(key, arguments)) is not None:
        return unknown
    key = getattr(error, "full_key", None)
    return f"{key}: {lines[0]}" if key and key not in lines[0] else lines[0]


def _explain_unparsed(error: OverrideParseException) -> str:
    try:
        parse([error.override])
    except UserError as explained:
        return str(explained)
    return " ".join(str(error).split())


def _explain_several(override: str) -> str:
    """Explain that several values need -m, or quotes if they look like a path."""
    key, _, value = override.partition("=")
    as_text = f"; as one text: {in_quotes(key, value)}" if "/" in value and "/" not in key and key not in GROUPS else ""
    return f"{key}: got several values, expected one; -m tries each of them{as_text}"


def _explain_unknown(key: str, arguments: Sequence[str]) -> str | None:
    """Explain that a key does not exist, with the nearest one that does; None if it exists after all."""
    flags, overrides = split_flags(arguments)
    groups = [override for override in overrides if _chooses(override.partition("=")[0]) and "," not in override]
    try:
        composed = composed_config([*(flag for flag in flags if flag not in SWITCHES), *groups], with_hydra=True)
    except (HydraException, OmegaConfBaseException):
        return f"{key}: no such key"
    chosen: Any = OmegaConf.to_container(composed.hydra.runtime.choices)
    config: Any = OmegaConf.to_container(composed, resolve=False)
    key = key.lstrip("+~")
    hydra = {"hydra": config.pop("hydra")}
    config = hydra if key.startswith("hydra.") else config
    if hints.exists(key, config):
        return None
    section = key.partition(".")[0]
    owner = f" of {section}={chosen[section]}" if section in _with_choices and section != key else ""
    return f"{key}: no such key{owner}{hints.unknown_key(key, config, chosen, config_folders(flags))}"


def _format_warning(message: Warning | str, category: type[Warning], *where: Any, **keywords: Any) -> str:
    """Format a warning about the data or a plugin as one line, without the line of this project that found it."""
    if issubclass(category, DataWarning | PluginWarning):
        return f"warning: {message}\n"
    return _usual_format(message, category, *where, **keywords)


def _chooses(key: str) -> bool:
    return key in GROUPS or "/" in key


def _exit(message: str, status: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise _Ended(status)
