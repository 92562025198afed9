"""The plan of a sweep: all of its jobs are composed and checked before the first one begins."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from math import prod
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig

from seqmem.cli import sweeps
from seqmem.cli.commandline import compose
from seqmem.cli.jobs import manifest_entry
from seqmem.cli.overrides import composed_config
from seqmem.errors import UserError

_most_jobs = 10_000
_many_jobs = 20

# Overrides that say how a search is run, not what is searched: they do not change the sweep's folder.
_not_of_a_search = (
    "output_dir=",
    "hydra/launcher=",
    "hydra.launcher.",
    "hydra.sweeper.n_trials=",
    "hydra.sweeper.n_jobs=",
    "hydra.sweeper.storage=",
)


def plan(overrides: Sequence[str], flags: Sequence[str]) -> None:
    """Check every job of a sweep, note those that are known by now, and choose the sweep's folder.

    The folder's name is a checksum of the jobs, so the same command finds its sweep again.

    Args:
        overrides: of the command line.
        flags: of the command line, without ``-m``.

    Raises:
        UserError: a job's config is wrong, or the jobs do not make a sweep.
    """
    sweep = _requested(overrides, flags)
    jobs = [(job, compose([*flags, *job])) for job in _job_overrides(sweep)]
    for _, config in jobs:
        devices = config["runner"]["devices"]
        if devices > 1:
            raise UserError(f"runner.devices: got {devices} with -m, expected 1: several devices train one job at a time")
    entries = [manifest_entry(config, job) for job, config in jobs]
    _refuse_duplicates(entries, [config for _, config in jobs])
    sweeps.current.swept = [override.key_or_group for override in sweep.overrides if override.is_sweep_override()]
    identity: list[Any]
    if sweep.is_grid:
        sweeps.current.jobs = entries
        identity = [(entry["group"], entry["seeds"]) for entry in entries]
    else:
        identity = sorted(text for text in sweep.lines if not text.startswith(_not_of_a_search))
    if sweep.sweeper._target_.endswith(".OptunaSweeper"):
        sweeps.current.settings = _search_settings(jobs[0][1], sweep.keys)
    os.environ["SEQMEM_SWEEP"] = _folder_name(entries, identity)


@dataclass(frozen=True)
class _Sweep:
    """A sweep as the command line describes it.

    Attributes:
        sweeper: the sweeper's section of Hydra's config.
        lines: overrides of the command line, then those of ``hydra.sweeper.params`` that it does not replace.
        overrides: the same, parsed.
        keys: keys of the command line's own overrides.
    """

    sweeper: DictConfig
    lines: list[str]
    overrides: list[Override]
    keys: set[str]

    @property
    def is_grid(self) -> bool:
        """Every combination is a job. Otherwise a search chooses its jobs while it runs."""
        return self.sweeper._target_.endswith((".PlannedSweeper", ".BasicSweeper"))


def _requested(overrides: Sequence[str], flags: Sequence[str]) -> _Sweep:
    parser = OverridesParser.create()
    given = parser.parse_overrides(list(overrides))
    fixed = [_line(override) for override in given if not override.is_sweep_override()]
    sweeper = composed_config([*flags, *fixed], with_hydra=True).hydra.sweeper
    keys = {override.key_or_group for override in given}
    params = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items() if key not in keys]
    lines = [*overrides, *params]
    return _Sweep(sweeper, lines, parser.parse_overrides(lines), keys)


def _job_overrides(sweep: _Sweep) -> list[list[str]]:
    """The overrides of each job to check: all jobs of a grid, each choice of a search once.

    Raises:
        UserError: too many jobs, or an interval in a grid.
    """
    choices = [_choices(override) for override in sweep.overrides]
    count = (prod if sweep.is_grid else sum)(map(len, choices))
    if count > _most_jobs:
        raise UserError(
            f"-m: got over {_most_jobs:,} jobs, expected at most {_most_jobs:,}; give fewer values, or several commands"
        )
    for override in sweep.overrides:
        if sweep.is_grid and override.is_interval_sweep():
            raise UserError(
                f"{override.key_or_group}: got an interval, expected values; hydra/sweeper=optuna searches intervals"
            )
    if count > _many_jobs:
        print(f"checking {count} jobs before the first begins")
    return [list(job) for job in (product(*choices) if sweep.is_grid else _one_at_a_time(choices))]


def _choices(override: Override) -> list[str]:
    """The overrides that a sweep puts in the place of one; for an interval, its ends."""
    if not override.is_sweep_override():
        return [_line(override)]
    key = _line(override).partition("=")[0]
    value = override.value()
    ends = [value.start, value.end] if isinstance(value, IntervalSweep) else override.sweep_string_iterator()
    return [f"{key}={end}" for end in islice(ends, _most_jobs + 1)]


def _line(override: Override) -> str:
    """The override as it was given; the parser always notes it."""
    return override.input_line or ""


def _one_at_a_time(choices: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """The first of all choices, then each other choice with the first of the rest."""
    first = [values[0] for values in choices]
    yield first
    for k, values in enumerate(choices):
        yield from ([*first[:k], value, *first[k + 1 :]] for value in values[1:])


def _refuse_duplicates(entries: Sequence[Mapping[str, Any]], configs: Sequence[Mapping[str, Any]]) -> None:
    """Refuse two jobs with equal settings and seeds but different configs, which one table cannot separate."""
    first: dict[tuple[Any, ...], int] = {}
    for k, entry in enumerate(entries):
        other = first.setdefault((entry["group"], *entry["seeds"]), k)
        if configs[k] != configs[other]:
            mine, theirs = set(entry["overrides"]), set(entries[other]["overrides"])
            pair = f"{' '.join(sorted(theirs - mine))} and {' '.join(sorted(mine - theirs))}"
            raise UserError(f"-m: got {pair}, which have the same settings and seeds; give them as two commands")


def _search_settings(config: Mapping[str, Any], given: set[str]) -> dict[str, Any]:
    """Settings of a search that the command line leaves open: the metric's direction, and to survive failed jobs."""
    import optuna

    from seqmem import datasets
    from seqmem.tasks import task_for

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    settings: dict[str, Any] = {}
    if "hydra.sweeper.direction" not in given:
        best = task_for(datasets.load(config["dataset"]).spec).best
        settings["direction"] = {"max": "maximize", "min": "minimize"}[best]
    if "hydra.sweeper.max_failure_rate" not in given:
        settings["max_failure_rate"] = 1.0
    return settings


def _folder_name(entries: Sequence[Mapping[str, Any]], identity: list[Any]) -> str:
    checksum = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
    different = {key: list(dict.fromkeys(entry[key] for entry in entries)) for key in ("dataset", "model")}
    names = ["-".join(found) if len(found) < 5 else f"{len(found)}_{key}s" for key, found in different.items()]
    return "_".join(["sweep", *names, checksum])
