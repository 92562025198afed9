"""A running sweep: its manifest, its workers' environment, and the one table at its end."""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, flag_override

from seqmem.cli import live_view
from seqmem.cli.overrides import split_flags
from seqmem.cli.places import assigned
from seqmem.errors import UserError
from seqmem.io import interrupts

if TYPE_CHECKING:
    from seqmem.cli.search.points import Point
    from seqmem.data import DataSet
    from seqmem.results.aggregate import Trials
    from seqmem.training.engines.job_lines import JobLines
    from seqmem.training.engines.workers import Workers


@dataclass(frozen=True)
class Search:
    """A search of this process.

    Attributes:
        overrides: its space, and what every point has.
        metric: the validation metric to optimise, such as ``accuracy``.
        points: number of its points; None if only a time limits it.
        trials: number of all of its trials, as far as it is known.
    """

    overrides: list[Override]
    metric: str
    points: int | None
    trials: int


@dataclass
class _Current:
    """The sweep of this process, if the command was given to it; empty in a worker.

    Attributes:
        command: the command line.
        overrides: the command line's, without Hydra's own.
        jobs: entries of the jobs that are known before the sweep begins.
        batch: the overrides of each of these jobs.
        swept: keys of the overrides that differ between the jobs.
        has_subfolders: the command line chooses a folder for each job.
        alone: overrides with which a job's own command does not sweep, where a file requests the sweep.
        settings: the sweeper's settings that follow from the plan.
        folder: of the sweep, from its beginning until it is reported.
        failed: exit statuses of the jobs that failed.
        workers: defers signals while worker processes run, so that they save their checkpoints.
        pool: trains the trials of all jobs, several at a time; None without a grid of jobs in this process.
        data: section of the config and data set of the last job of the pool.
        search: that chooses the jobs; None if they are known.
        point: of the search whose job is run now.
        view: shows the jobs; None without a terminal.
    """

    command: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    batch: list[list[str]] = field(default_factory=list)
    swept: list[str] = field(default_factory=list)
    has_subfolders: bool = False
    alone: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    failed: list[int] = field(default_factory=list)
    workers: ExitStack = field(default_factory=ExitStack)
    pool: "Workers | None" = None
    data: "tuple[dict[str, Any], DataSet] | None" = None
    search: Search | None = None
    point: "Point | None" = None
    view: "JobLines | None" = None


current = _Current()


class Manifest(Callback):
    """Hydra's callback that writes a sweep's manifest and prepares its workers."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the manifest. Hydra calls this before it makes the sweeper and the launcher from this config."""
        from seqmem.results import Sweep

        current.folder = Path(config.hydra.sweep.dir)
        with suppress(UserError):  # Hydra would only warn; each job names a folder that cannot be written
            Sweep(current.folder).add(current.jobs, current.command, current.swept)
        # A worker on another machine composes its job from these overrides and may lack this process's environment.
        folder = QuotedString(str(current.folder), Quote.single).with_quotes()
        with flag_override(config, ["struct", "readonly"], False):
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir={folder}")
            config.hydra.sweeper.update(current.settings)
            if current.command:  # Hydra has composed the first job alone
                config.hydra.overrides.task = current.overrides
                sys.argv = list(current.command)
        _prepare_workers(config.hydra.launcher._target_)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Give a worker its signal handlers and the job's command line: its own arguments are the launcher's."""
        if not current.command:
            interrupts.install_in_worker()
            sys.argv = ["train.py", *config.hydra.overrides.task]


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
            groups = report.write(folder)
            for group in results.best_by_validation(groups):
                print(_best(group, groups, folder, jobs))
            best = folder / "optimization_results.yaml"
            if best.exists():
                print(f"best of the search: {OmegaConf.to_container(OmegaConf.load(best))}")
    finally:
        if failed:
            print(f"error: {len(failed)} of {len(jobs)} jobs failed", file=sys.stderr)
        for failure in dict.fromkeys(job["failure"] for job in failed):
            of = [shlex.join(job["overrides"]) for job in failed if job["failure"] == failure]
            lines = [f"error: {of[0]}: {failure}"] if len(of) == 1 else [f"error: {len(of)} jobs: {failure}", *of]
            print("\n  ".join(lines), file=sys.stderr)


def _best(group: "Trials", groups: Sequence["Trials"], folder: Path, jobs: Sequence[Mapping[str, Any]]) -> str:
    """Return the best row of a data set: its validation, its folder, and on lines of their own the commands that train it."""
    from seqmem.results.aggregate import mean_and_deviation
    from seqmem.results.table import spread

    place = group.finished[0].folder.path.parent
    found = spread(*mean_and_deviation(group.results("val")))
    mean = mean_and_deviation(group.results("val"))[0]
    others = [each for each in groups if each is not group and each.dataset == group.dataset]
    equal = [each.model for each in others if mean_and_deviation(each.results("val"))[0] == mean]
    names = group.model + (f" (equal: {', '.join(equal)})" if equal else "")
    line = f"best validation {group.metric} on {group.dataset}: {names}, {found} (n = {len(group.finished)}), in {place}"
    alone = [assigned("hydra.run.dir", str(place))] if current.has_subfolders else []
    commands = [_command([*job["overrides"], *alone]) for job in jobs if job["folder"] and _same(folder / job["folder"], place)]
    return "\n".join([f"{line}:", *commands]) if commands else line


def _same(path: Path, other: Path) -> bool:
    return os.path.normpath(path) == os.path.normpath(other)


def _command(overrides: Sequence[str]) -> str:
    """Return the command line of a job by itself, with the flags of the sweep's."""
    script, *arguments = current.command
    flags = [flag for flag in split_flags(arguments)[0] if flag not in ("-m", "--multirun")]
    command = ["python", script] if script.endswith(".py") else script.split()
    return shlex.join([*command, *flags, *overrides, *current.alone])


def _prepare_workers(launcher: str) -> None:
    """Make the workers of this process; for another launcher, prepare its processes' environment, and pass signals on."""
    if launcher.endswith(".BasicLauncher"):
        if current.batch or current.search:
            from seqmem.training.engines.workers import Workers

            search = current.search
            trials = search.trials if search else sum(len(job["seeds"]) for job in current.jobs)
            total = search.points if search else len(current.jobs)
            current.view = live_view.of_sweep(current.jobs, current.swept, total, search is not None)
            if current.view is not None:
                current.workers.callback(current.view.close)
            current.pool = current.workers.enter_context(Workers(trials, current.view))
        return
    current.workers.enter_context(interrupts.deferred(interrupts.signal_children))
    import torch

    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    if not launcher.endswith(".SlurmLauncher"):  # Slurm gives each job processors of its own
        # As many threads as in this process: sums in a different order round differently.
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[variable] = str(torch.get_num_threads())
