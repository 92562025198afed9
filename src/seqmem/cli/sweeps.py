"""A sweep: its jobs settled before the first begins, each noted in its manifest, and one table at the end."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice, product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, Quote, QuotedString
from hydra.experimental.callback import Callback
from hydra.plugins.sweeper import Sweeper
from hydra.types import RunMode
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf, flag_override

from seqmem.cli.commandline import compose
from seqmem.cli.messages import described
from seqmem.cli.overrides import composed_config
from seqmem.errors import UserError

if TYPE_CHECKING:
    from seqmem.results import Experiment, RunFolder

# What of a search's command line says how it is run, not what is searched.
_not_of_a_search = (
    "output_dir=",
    "hydra/launcher=",
    "hydra.launcher.",
    "hydra.sweeper.n_trials=",
    "hydra.sweeper.n_jobs=",
    "hydra.sweeper.storage=",
)

# Every job is checked before the first begins.
_most_jobs = 10_000
_many_jobs = 20


@dataclass
class _Current:
    """The sweep of this process, if it is the one that the command was given to, and not a worker.

    Attributes:
        command: the command line; empty in a worker.
        jobs: what the sweep is known to consist of before it begins.
        settings: of the sweeper, that the command line leaves open.
        folder: of the sweep, once it has begun and until it has been reported.
        failed: exit statuses of jobs that failed while the others went on.
    """

    command: list[str] = field(default_factory=list)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    failed: list[int] = field(default_factory=list)


current = _Current()


def plan(overrides: Sequence[str], flags: Sequence[str]) -> None:
    """Check the jobs of a sweep, note those that are known by now, and choose its folder, the same for the same jobs."""
    parser = OverridesParser.create()
    fixed = [override.input_line for override in parser.parse_overrides(list(overrides)) if not override.is_sweep_override()]
    sweeper = composed_config([*flags, *fixed], with_hydra=True).hydra.sweeper
    given = {override.key_or_group for override in parser.parse_overrides(list(overrides))}
    params = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items() if key not in given]
    choices = [_choices(override) for override in parser.parse_overrides([*overrides, *params])]
    every = sweeper._target_.endswith(".BasicSweeper")
    count = (prod if every else sum)(map(len, choices))
    if count > _most_jobs:
        raise UserError(f"got a sweep of more than {_most_jobs:,} jobs; give fewer values, or several commands")
    for override in parser.parse_overrides([*overrides, *params]):
        if every and override.is_interval_sweep():
            raise UserError(
                f"{override.input_line}: an interval is searched; expected hydra/sweeper=optuna beside it, or values"
            )
    if count > _many_jobs:
        print(f"checking {count} jobs before the first begins")
    jobs = [(list(job), compose([*flags, *job])) for job in (product(*choices) if every else _one_at_a_time(choices))]
    if every:
        # Which composes each of them again: half a second for three, minutes for a thousand.
        get_class(sweeper._target_).validate_batch_is_legal = _checked_by_plan
    for _, config in jobs:
        devices = config["runner"]["devices"]
        if devices > 1:
            raise UserError(f"runner.devices: got {devices} with -m, expected 1: several devices are for one job at a time")
    planned = [_planned(config, job) for job, config in jobs]
    _refuse_namesakes(planned, [config for _, config in jobs])
    identity: list[Any]
    if every:
        current.jobs = planned
        identity = [(job["group"], job["seeds"]) for job in planned]
    else:
        identity = sorted(text for text in [*overrides, *params] if not text.startswith(_not_of_a_search))
    if sweeper._target_.endswith(".OptunaSweeper"):
        current.settings = _search_settings(jobs[0][1], given)
    checksum = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
    several = {key: list(dict.fromkeys(job[key] for job in planned)) for key in ("dataset", "model")}
    names = ["-".join(found) if len(found) < 5 else f"{len(found)}_{key}s" for key, found in several.items()]
    os.environ["SEQMEM_SWEEP"] = "_".join(["sweep", *names, checksum])


def _checked_by_plan(sweeper: Sweeper, batch: Sequence[Sequence[str]]) -> None:
    """In the place of Hydra's own check of a sweep's jobs."""


def _refuse_namesakes(planned: Sequence[Mapping[str, Any]], configs: Sequence[Mapping[str, Any]]) -> None:
    """Refuse two jobs of equal settings and seeds that are not the same job: one table cannot tell them apart.

    Raises:
        UserError: naming what they differ in.
    """
    first: dict[tuple[Any, ...], int] = {}
    for k, job in enumerate(planned):
        other = first.setdefault((job["group"], *job["seeds"]), k)
        if configs[k] != configs[other]:
            one, two = (
                " ".join(sorted(set(planned[n]["overrides"]) - set(planned[m]["overrides"])))
                for n, m in ((other, k), (k, other))
            )
            raise UserError(
                f"{one} and {two} are the same settings and seeds, which a sweep holds once; give them as two commands"
            )


def _choices(override: Override) -> list[str]:
    """What a sweep may put in the place of an override; of an interval its ends."""
    if not override.is_sweep_override():
        return [override.input_line]
    key = override.input_line.partition("=")[0]
    value = override.value()
    ends = [value.start, value.end] if isinstance(value, IntervalSweep) else override.sweep_string_iterator()
    return [f"{key}={end}" for end in islice(ends, _most_jobs + 1)]


def _one_at_a_time(choices: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """The first of all choices, then each other one beside the first of the rest."""
    first = [values[0] for values in choices]
    yield first
    for k, values in enumerate(choices):
        yield from ([*first[:k], value, *first[k + 1 :]] for value in values[1:])


def _search_settings(config: Mapping[str, Any], given: set[str]) -> dict[str, Any]:
    """What a search should be told and was not: in which direction the metric is better, and that it survives a failed job."""
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


class Job:
    """What is told of a job while it runs and when it ends."""

    def __init__(self, config: Mapping[str, Any]):
        from seqmem import results

        hydra = HydraConfig.get()
        self.seeds = _seeds(config)
        self._sweep = results.Sweep(Path(hydra.sweep.dir)) if hydra.mode == RunMode.MULTIRUN else None
        self._told: dict[str, Any] = {**_planned(config, hydra.overrides.task), "failure": None}
        self._experiment: Experiment | None = None
        self._tell()

    @property
    def experiment(self) -> "Experiment":
        """Where its trials lie, once it has begun."""
        assert self._experiment is not None
        return self._experiment

    def begin(self, experiment: "Experiment") -> None:
        """Its data and model are there, and its trials begin."""
        self._experiment = experiment
        self._told |= {"folder": experiment.folder, "code": experiment.code}
        self._tell()

    def fail(self, error: Exception) -> None:
        """Note why it ends."""
        reason, status = described(error)
        self._told |= {"failure": reason, "status": status}
        self._tell()

    def report(self) -> None:
        """Write and show its table; a sweep's comes at the sweep's end."""
        if self._sweep or self._experiment is None:
            return
        from seqmem import results

        begun = [trial for trial in self._trials() if (trial.path / "record.json").exists()]
        if begun:
            results.report(self._experiment.folder, begun)

    def validation_mean(self) -> float:
        """The validation metric's mean over the trials."""
        from seqmem import results

        table = results.summarize(results.group_trials(results.read_run(trial) for trial in self._trials()))
        return float(table["val_mean"].iloc[0])

    def _trials(self) -> "list[RunFolder]":
        return [self.experiment.trial(seed) for seed in self.seeds]

    def _tell(self) -> None:
        if self._sweep:
            self._sweep.add([self._told])


@contextmanager
def reported(config: Mapping[str, Any]) -> Iterator[Job]:
    """Within, a job is run; what came of it is reported then, however it ends.

    The table of a job of its own is shown and lies beside its trials. A sweep's job is noted in the sweep's manifest, for the
    one table that the sweep ends with.
    """
    job = Job(config)
    try:
        yield job
    except BaseException as error:
        with suppress(UserError):  # where the disk is full, what failed first is what to tell
            if isinstance(error, Exception):
                job.fail(error)
            job.report()
        raise
    job.report()


def _planned(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """What a sweep's manifest says of a job before it begins."""
    from seqmem import models
    from seqmem.results.record import digest
    from seqmem.training.config import model_arguments

    return {
        "overrides": list(overrides),
        "dataset": config["dataset"]["name"],
        "model": models.label(model_arguments(config)),
        "group": digest(config),
        "seeds": list(_seeds(config)),
    }


def _seeds(config: Mapping[str, Any]) -> range:
    return range(config["seed"], config["seed"] + config["runner"]["ntrials"])


class Manifest(Callback):
    """Notes what a sweep consists of before it begins, and what its workers have to know."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra, before it makes the sweeper and the launcher of this config."""
        from seqmem.results import Sweep

        current.folder = Path(config.hydra.sweep.dir)
        with suppress(UserError):  # Hydra makes a warning of it; if the folder cannot be written, the jobs say so
            Sweep(current.folder).add(current.jobs, current.command)
        # A worker elsewhere composes its job from these and may not have this process's environment.
        folder = QuotedString(str(current.folder), Quote.single).with_quotes()
        with flag_override(config, ["struct", "readonly"], False):
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir={folder}")
            config.hydra.sweeper.update(current.settings)
        _prepare_workers(config.hydra.launcher._target_)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra in the process that runs the job; a worker's own arguments tell nothing of it."""
        if not current.command:
            sys.argv = ["train.py", *config.hydra.overrides.task]


def _prepare_workers(launcher: str) -> None:
    """Set what worker processes of a launcher find in their environment."""
    if launcher.endswith(".BasicLauncher"):
        return
    import torch

    paths = [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    if not launcher.endswith(".SlurmLauncher"):  # the jobs of which have processors of their own
        # As many threads as in this process: sums in another order are other numbers.
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[variable] = str(torch.get_num_threads())


def report_sweep() -> None:
    """Show the table of the sweep that has begun, and name the jobs that failed, once."""
    folder, current.folder = current.folder, None
    if folder is None:
        return
    from seqmem import results
    from seqmem.cli import report

    jobs = results.Sweep(folder).jobs()
    failed = [job for job in jobs if job["failure"]]
    current.failed += [job["status"] for job in failed]
    try:
        if results.find_runs(folder):
            results.show_table(report.write(folder))
            found = folder / "optimization_results.yaml"
            if found.exists():  # a search has left it
                print(f"best of the search: {dict(OmegaConf.load(found))}")
    finally:
        if failed:
            print(f"error: {len(failed)} of {len(jobs)} jobs failed", file=sys.stderr)
        for job in failed:
            print(f"error: {' '.join(job['overrides'])}: {job['failure']}", file=sys.stderr)
