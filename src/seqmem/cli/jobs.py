"""One job: a config whose trials are run, noted in its sweep's manifest, and reported."""

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from seqmem.cli import places, sweeps
from seqmem.cli.live_view import Watched, values
from seqmem.cli.messages import describe
from seqmem.errors import UserError
from seqmem.io import interrupts

if TYPE_CHECKING:
    from seqmem.data import DataSet
    from seqmem.results import Experiment, RunFolder
    from seqmem.training import Data


@contextmanager
def reported(config: Mapping[str, Any], standalone: bool = False) -> Iterator["Job"]:
    """Run a job within, and report its outcome however it ends.

    The table of a single job is shown and lies next to its trials. A sweep's job is noted in the sweep's manifest, for the one
    table at the sweep's end.

    Args:
        config: the job's checked config.
        standalone: the job is not one of Hydra's, but of a Python program.
    """
    job = Job(config, standalone)
    try:
        yield job
    except BaseException as error:
        interrupts.raise_if_received()  # the job has not failed, and its table can wait
        with suppress(UserError):  # on a full disk, the first failure is the one to report
            if isinstance(error, Exception):
                job.fail(error)
            job.report()
        raise
    job.report()


class Job:
    """The state of a job, and its entry in the sweep's manifest.

    Args:
        config: the job's checked config.
        standalone: as for :func:`reported`.
    """

    def __init__(self, config: Mapping[str, Any], standalone: bool = False):
        from seqmem import results

        if interrupts.received() is not None and sweeps.current.pool is not None:
            sweeps.current.pool.finish()
        interrupts.raise_if_received()
        hydra: Any = None if standalone else HydraConfig.get()
        self.seeds = _seeds(config)
        self._config = config
        self._name = f"job {hydra.job.num} ({hydra.job.override_dirname})" if hydra and "num" in hydra.job else ""
        self._place = places.job_folder(hydra) if hydra else None
        self._sweep = results.Sweep(Path(hydra.sweep.dir)) if hydra and hydra.mode == RunMode.MULTIRUN else None
        self._entry: dict[str, Any] = {**manifest_entry(config, hydra.overrides.task if hydra else ()), "failure": None}
        if sweeps.current.point is not None:
            self._entry["pruned"] = None
        number = str(hydra.job.num) if hydra and "num" in hydra.job else ""
        self._watched = Watched(sweeps.current.view if number else None, number, sweeps.current.point)
        self._experiment: Experiment | None = None
        self._update_manifest()

    @property
    def experiment(self) -> "Experiment":
        """The folders of its trials, once it has begun."""
        assert self._experiment is not None
        return self._experiment

    def begin(self, experiment: "Experiment") -> None:
        """Note that data and model are loaded, and where the trials lie.

        Raises:
            UserError: the folder that was chosen for them has trials of a different experiment.
        """
        if self._place is not None:
            experiment = replace(experiment, folder=self._place)
            for seed in self.seeds:
                experiment.refuse_others(seed)
        swept = self._sweep.swept() if self._sweep else []
        self._experiment = replace(experiment, swept=values(self._entry["overrides"], swept))
        self._entry |= {"folder": experiment.folder, "code": experiment.code, "backend": experiment.backend}
        self._update_manifest()

    def load(self) -> "Data":
        """Load the data set; the jobs of a sweep share it with the job before if that has the same."""
        section, current = self._config["dataset"], sweeps.current
        if current.pool is None:
            data = load(section)
        else:
            if current.data is None or current.data[0] != section:
                current.data = None  # no two at once
                current.data = dict(section), load(section)
            data = current.data[1]
        self._entry["data_name"] = data.spec.name
        return data

    def train(self, data: "Data") -> None:
        """Train the trials, or let the workers of the sweep train them after this call.

        Raises:
            Exception: the failure of the first trial that failed, after the other trials have run.
        """
        from seqmem import training
        from seqmem.tasks import task_for

        current, model = sweeps.current, self._entry["model"]
        if current.point is not None:
            current.point.noted = self._prune
            current.point.begin(self.experiment, self.seeds[0], f"val/{task_for(data.spec).metric}")
        with self._watched.shown(self.experiment, model, data.spec.name):
            training.run_trials(self._config, data, self.experiment, current.pool, self._fail_later, self._watched)

    def _prune(self, reason: str) -> None:
        self._entry["pruned"] = reason
        self._update_manifest()

    def _fail_later(self, error: Exception) -> None:
        self.fail(error)
        if self._config["traceback"]:
            print(*getattr(error, "__notes__", ()), file=sys.stderr)
        print(f"error: {self._name}: {self._entry['failure']}", file=sys.stderr)

    def fail(self, error: Exception) -> None:
        """Note why the job ends."""
        reason, status = describe(error)
        self._entry |= {"failure": reason, "status": status}
        self._watched.failed(reason)
        self._update_manifest()

    def report(self) -> None:
        """Write and show the table of a single job; a sweep has one table at its end."""
        if self._sweep or self._experiment is None:
            return
        from seqmem import results

        begun = [trial for trial in self._trials() if (trial.path / "record.json").exists()]
        if begun:
            results.report(self._experiment.folder, begun)
            self._print_how_to_predict(begun)

    def _print_how_to_predict(self, begun: "list[RunFolder]") -> None:
        """Print the command that predicts new series, if the trials have a user's files, by the best one in validation."""
        from seqmem import results

        finished = [[run] for run in map(results.read_run, begun) if run.finished]
        if self._entry["dataset"] == "files" and finished:
            for best in results.best_by_validation(group for run in finished for group in results.group_trials(run)):
                [run] = best.runs
                print(f"predict new series: seqmem predict {shlex.quote(str(run.folder.path))} FILE --out predictions.csv")

    def validation_mean(self) -> float | None:
        """The validation metric's mean over the trials; None while the workers of a sweep may train them."""
        from seqmem import results

        if sweeps.current.pool is not None:
            return None
        table = results.summarize(results.group_trials(results.read_run(trial) for trial in self._trials()))
        return float(table["val_mean"].iloc[0])

    def _trials(self) -> "list[RunFolder]":
        return [self.experiment.trial(seed) for seed in self.seeds]

    def _update_manifest(self) -> None:
        if self._sweep:
            self._sweep.add([self._entry])


def load(section: Mapping[str, Any]) -> "DataSet":
    """Load a data set, and print what was understood of a user's files.

    Args:
        section: ``dataset`` of the config.
    """
    from seqmem import datasets

    data = datasets.load(section)
    if data.summary is not None:
        print(data.summary, flush=True)
    return data


def manifest_entry(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The entry of a job in a sweep's manifest before the job begins.

    Args:
        config: the job's checked config.
        overrides: of the job's command line.
    """
    from seqmem import models
    from seqmem.results.record import digest
    from seqmem.training.backend import requested
    from seqmem.training.config import model_arguments

    return {
        "overrides": list(overrides),
        "dataset": config["dataset"]["name"],
        "model": models.label(model_arguments(config)),
        "group": digest(config),
        "data_settings": digest({"dataset": config["dataset"]}),
        "requested": requested(config),
        "seeds": list(_seeds(config)),
    }


def _seeds(config: Mapping[str, Any]) -> range:
    return range(config["seed"], config["seed"] + config["runner"]["ntrials"])
