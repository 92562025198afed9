"""Training from a Python program or a notebook, with the config and the record of ``seqmem train``."""

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Quote, QuotedString

from seqmem.cli import commandline, jobs, plan
from seqmem.cli.overrides import GROUPS, split_flags, translate
from seqmem.errors import UserError

if TYPE_CHECKING:
    from seqmem.results import RunFolder

_of_one_job = ("hydra.mode=RUN",)


def train(overrides: str | Sequence[str] = (), **settings: Any) -> "list[RunFolder]":
    """Train the trials of a config, as ``seqmem train OVERRIDES`` does, and return their folders.

        [trial] = seqmem.train("dataset=digits model=gru train.epochs=3")
        [trial] = seqmem.train(dataset="digits", model="gru", train={"epochs": 3})  # the same
        trial.read_record()["result"]["test/accuracy"]
        model = seqmem.load(trial.path)

    Config, folder, record and table are those of the command line, and a finished trial is found instead of repeated. Each
    trial sets the global random state from its seed.

    Args:
        overrides: the arguments of ``seqmem train``: a list, or one string that is split as in a shell.
        settings: further keys. A mapping holds the keys of a section; ``**{"train.lr": 0.01}`` also works.

    Returns:
        The folder of each of the ``runner.ntrials`` trials. It has ``path``, ``read_record()``, ``read_metrics()`` and
        ``read_config()``.

    Raises:
        UserError: an unknown key, a wrong value, or data that cannot be loaded, as on the command line; a sweep.
        Exception: the failure of the first trial that failed, after the other trials have run.
    """
    given = shlex.split(overrides) if isinstance(overrides, str) else list(overrides)
    arguments = translate([*given, *_written(settings)])
    _refuse_sweeps(arguments)
    config = commandline.compose(arguments)
    with _recorded_as(["train.py", *arguments]), jobs.reported(config, standalone=True) as job:
        from seqmem import training

        data = jobs.load(config["dataset"])
        job.begin(training.experiment(config, data))
        return training.run_trials(config, data, job.experiment)


def _refuse_sweeps(arguments: Sequence[str]) -> None:
    """Check that translated arguments, and the files that they choose, train one job.

    Raises:
        UserError: a flag of ``seqmem train``, a setting of Hydra's, or a file that requests a sweep.
    """
    flags, overrides = split_flags(arguments)
    if unknown := [flag for flag in flags if flag.startswith("-") and flag not in ("--config-dir", "-cd")]:
        raise UserError(f"seqmem.train: got {unknown[0]}, expected KEY=VALUE; seqmem train takes flags")
    given = [override for override in overrides if override.lstrip("+~").startswith(("hydra.", "hydra/", "hydra="))]
    if settings := [override for override in given if override not in _of_one_job]:
        raise UserError(f"seqmem.train: got {settings[0]}, expected a key of the config; seqmem train runs sweeps")
    if plan.may_set_mode(overrides, flags) and plan.requests_sweep(plan.hydra_section(overrides, flags)):
        raise UserError(
            "seqmem.train: got a file that requests a sweep, expected one job; seqmem train runs sweeps, hydra.mode=RUN none"
        )


@contextmanager
def _recorded_as(command: list[str]) -> Iterator[None]:
    """Let the records of the trials name the command line that trains the same."""
    before, sys.argv = sys.argv, command
    try:
        yield
    finally:
        sys.argv = before


def _written(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield settings as overrides in Hydra's grammar, those of nested mappings with dotted keys."""
    for name, value in settings.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            yield from _written(value, f"{key}.")
        elif key in GROUPS and isinstance(value, str):
            yield f"{key}={value}"
        else:
            yield f"{key}={_literal(value, key)}"


def _literal(value: Any, key: str) -> str:
    """Return a value in Hydra's grammar."""
    if hasattr(value, "tolist"):  # a number or an array of NumPy or torch
        value = value.tolist()
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | PathLike):
        return QuotedString(fspath(value), Quote.single).with_quotes()
    if isinstance(value, list | tuple):
        return f"[{','.join(_literal(each, key) for each in value)}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{name}:{_literal(each, key)}' for name, each in value.items())}}}"
    raise UserError(f"{key}: got {value!r}, expected a number, a string, a list or a mapping")
