"""The trials of a config: the same training from several seeds."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from seqmem import models
from seqmem.results.experiment import Experiment
from seqmem.results.record import RunFolder, digest
from seqmem.tasks import task_for
from seqmem.training.backend import planned
from seqmem.training.config import check_fit, model_arguments, runner_config
from seqmem.training.engines.attempts import Attempt, one_by_one
from seqmem.training.engines.choice import Choice, DeviceMemory, choose
from seqmem.training.engines.data_check import check_data
from seqmem.training.engines.watcher import Watcher
from seqmem.training.engines.worker import Trial
from seqmem.training.engines.workers import CannotStartError, Workers, say_why_not_at_once
from seqmem.training.fingerprint import fingerprint
from seqmem.training.loop.pruning import Judge, judged
from seqmem.training.loop.splits import Data
from seqmem.training.loop.threads import to_resume_with


def experiment(config: Mapping[str, Any], data: Data, output_dir: Path | None = None) -> Experiment:
    """Return the experiment of a config, whose folder depends on settings, code, data and backend.

    Args:
        config: as for :func:`run_trials`.
        data: the data set.
        output_dir: parent folder; None for the config's.

    Raises:
        UserError: the model does not fit the data set, or the data cannot be identified.
    """
    model = check_fit(config, data.spec)
    check_data(config["dataset"], data)
    label = f"{data.spec.name}_{models.label(model_arguments(config))}"
    folder = Path(config["output_dir"]) if output_dir is None else output_dir
    code = fingerprint(model, data, task_for(data.spec), config["train"])
    return Experiment.of(folder, label, digest(config), code, data.describe(), planned(config))


def run_trials(
    config: Mapping[str, Any],
    data: Data,
    experiment: Experiment,
    workers: Workers | None = None,
    failed: Callable[[Exception], None] | None = None,
    watcher: Watcher | None = None,
) -> list[RunFolder]:
    """Train ``runner.ntrials`` models, trial k with seed + k, where ``runner.name`` says; print a line after each.

    A finished trial is not repeated. A trial whose lock a different process holds comes last, and its end is awaited.

    Args:
        config: a resolved, checked config: model, train, runner, dataset, seed, smoke_test.
        data: the data set that ``config["dataset"]`` describes.
        experiment: what :func:`experiment` returns for them.
        workers: those of a sweep, which may still train the trials when this function returns; None to wait for their end.
        failed: called later with the failure of the first of these trials that failed, after the others have run.
        watcher: of a search, which may stop the trials and gets their outcomes, later in the case of ``workers``.

    Returns:
        The trials' folders.

    Raises:
        Exception: the failure of the first trial that failed, after the other trials have run.
    """
    seeds = range(config["seed"], config["seed"] + config["runner"]["ntrials"])
    job = _Outcomes(experiment, seeds, watcher)
    with ExitStack() as own:
        own_workers = workers or own.enter_context(Workers(len(seeds)))
        unfinished = [seed for seed in seeds if experiment.trial(seed).finished() is None]
        # On a GPU the choice takes a short training.
        choice = _choice(config, data, experiment, own_workers) if unfinished else None
        if choice is not None and choice.workers == 1:
            own_workers.finish()
            _one_after_the_other(config, data, experiment, job, seeds)
            return job.folders()
        job.failed = failed if workers else None
        for seed in seeds:
            if choice is None or seed not in unfinished:
                _attempt_finished(Trial(config, data, experiment, seed), choice or Choice(), own_workers, job)
                continue
            try:
                _submit(Trial(config, data, experiment, seed), choice, own_workers, job)
            except CannotStartError as error:
                say_why_not_at_once(error)
                own_workers.finish()
                job.failed = None
                job.busy.clear()
                _one_after_the_other(config, data, experiment, job, seeds[seeds.index(seed) :])
                return job.folders()
    if workers is None:
        job.raise_failure()
    return job.folders()


def _attempt_finished(trial: Trial, choice: Choice, workers: Workers, job: "_Outcomes") -> None:
    """Attempt a finished trial in this process; one whose lock is held is attempted again by a process, after the others."""
    [outcome] = one_by_one(trial.config, trial.data, trial.experiment, [trial.seed], wait=False)
    job.add(outcome)
    if outcome.is_busy:
        workers.submit_last(trial, _resumed(choice, trial.experiment, trial.seed), job.add, job.judge(trial.seed))


def _submit(trial: Trial, choice: Choice, workers: Workers, job: "_Outcomes") -> None:
    """Start a trial as soon as a process is free, unless a search has stopped the job by then."""
    workers.wait(choice)
    if job.stopped:
        job.skip()
    else:
        workers.submit(trial, _resumed(choice, trial.experiment, trial.seed), job.add, job.judge(trial.seed))


def _one_after_the_other(config: Mapping[str, Any], data: Data, experiment: Experiment, job: "_Outcomes", seeds: range) -> None:
    """Attempt trials from this process, and then those that a different process trained."""
    name = runner_config(config["runner"]).name
    attempts = _runner(name)
    if name != "ray" and config["runner"].get("workers", "auto") != "auto":
        config = {**config, "runner": {**config["runner"], "workers": 1}}  # for the record
    for wait, chosen in ((False, seeds), (True, job.busy)):
        for outcome in attempts(config, data, experiment, job.judged(chosen), wait):
            job.add(outcome)
    job.raise_failure()


def _resumed(choice: Choice, experiment: Experiment, seed: int) -> Choice:
    """Return a choice with the number of threads with which a stopped trial began."""
    last = experiment.trial(seed).checkpoints / "last.ckpt"
    return replace(choice, threads=to_resume_with(last) or choice.threads)


def _choice(config: Mapping[str, Any], data: Data, experiment: Experiment, workers: Workers) -> Choice:
    """Choose how many trials are trained at a time; a GPU's memory is measured by a short training."""

    def measure() -> DeviceMemory | None:
        runner = {**config["runner"], "tensorboard": False, "wandb": None, "mlflow": None}
        with TemporaryDirectory() as folder:
            short = {**config, "runner": runner, "smoke_test": True}
            elsewhere = replace(experiment, folder=Path(folder))
            return workers.device_memory(Trial(short, data, elsewhere, config["seed"], silent=True))

    if workers.trials == 1:
        return Choice()
    if experiment.group not in workers.choices:
        model = check_fit(config, data.spec)
        workers.choices[experiment.group] = choose(config, model, data.spec, workers.trials, measure)
    return workers.choices[experiment.group]


def _runner(name: str) -> Callable[..., Iterator[Attempt]]:
    if name == "ray":
        from seqmem.training.engines.ray_runner import spread

        return spread
    return one_by_one


class _Outcomes:
    """The outcomes of a job's trials: a line is printed after each.

    Args:
        experiment: with the trials' folders.
        seeds: of the trials.
        watcher: see :func:`run_trials`.

    Attributes:
        busy: seeds of trials whose lock a different process holds.
        failed: called with the failure of the first trial that failed, once all have an outcome; None for no call.
    """

    def __init__(self, experiment: Experiment, seeds: range, watcher: Watcher | None = None):
        self.seeds, self.busy = seeds, list[int]()
        self.failed: Callable[[Exception], None] | None = None
        self._experiment, self._watcher = experiment, watcher
        self._attempts: dict[int, Attempt] = {}
        self._skipped = 0

    def folders(self) -> list[RunFolder]:
        """Return the trials' folders."""
        return [self._experiment.trial(seed) for seed in self.seeds]

    @property
    def failure(self) -> Exception | None:
        """The failure of the first trial that failed."""
        return next((found for _, each in sorted(self._attempts.items()) if (found := each.failure) is not None), None)

    def raise_failure(self) -> None:
        """Raise the failure of the first trial that failed."""
        if self.failure is not None:
            raise self.failure

    @property
    def stopped(self) -> bool:
        """Whether no further trial is to begin, since a search stopped one."""
        return self._watcher is not None and self._watcher.stopped

    def judge(self, seed: int) -> Judge | None:
        """Return what judges a trial; None if nothing does."""
        return self._watcher.judge(seed) if self._watcher is not None else None

    def judged(self, seeds: Sequence[int]) -> Iterator[int]:
        """Yield seeds, each while its trial is judged in this process, until the search stops the job."""
        for seed in seeds:
            if self.stopped:
                self.skip()
                continue
            with judged(self.judge(seed)):
                yield seed

    def skip(self) -> None:
        """Note that a trial does not begin."""
        self._skipped += 1
        self._end()

    def add(self, outcome: Attempt) -> None:
        """Print the line of an outcome, and note a failure."""
        folder = self._experiment.trial(outcome.seed).path
        if outcome.is_busy:
            self.busy.append(outcome.seed)
            print(f"another process trains {folder}: waited for after the others", flush=True)
            return
        self._attempts[outcome.seed] = outcome
        if outcome.failure is None and outcome.record is not None:
            title = self._experiment.title(outcome.record["model"], outcome.record["dataset"])
            line = _summary_line(title, outcome.record, outcome.seed - self.seeds[0] + 1, len(self.seeds))
            logged = "".join(f", logged to {name} from its metrics" for name in outcome.logged)
            print(f"{line}; {'in' if outcome.trained else 'found in'} {folder}{logged}", flush=True)
        self._end()

    def _end(self) -> None:
        if len(self._attempts) + self._skipped < len(self.seeds):
            return
        if self._watcher is not None:
            self._watcher.ended([attempt for _, attempt in sorted(self._attempts.items())])
        if self.failed and self.failure is not None:
            self.failed(self.failure)


def _summary_line(title: str, record: Mapping[str, Any], number: int, count: int) -> str:
    """Return the line that is printed after a trial: its results, and how sequences were computed; or why it was pruned."""
    if record["status"] == "pruned":
        return f"{title}, trial {number} of {count} (seed {record['seed']}): {record['reason']}, {record['seconds']:.1f} s"
    name, result, floor = record["metric"], record["result"], record["irreducible_error"]
    irreducible = "" if floor is None else f" ({floor:.4f} is irreducible)"
    accuracy = record.get("linear_probe_accuracy")
    probe = "" if accuracy is None else f", linear classifier of the encodings {accuracy:.4f}"
    paths = ", ".join(sorted(set(record["recurrences"])))
    sequences = f", each sequence {paths}" if paths else ""
    stopped = " (stopped early)" if record.get("stopped_early") else ""
    smoke = ", smoke test" if record["smoke_test"] else ""
    resumed = "".join(f", resumed after {updates} updates" for updates in record["resumed_at"])
    return (
        f"{title}, trial {number} of {count} (seed {record['seed']}): "
        f"test {name} {result[f'test/{name}']:.4f}{irreducible}, validation {name} {result[f'val/{name}']:.4f} "
        f"at epoch {record['best_epoch'] + 1} of {record['epochs']}{stopped}, {record['seconds']:.1f} s"
        f"{smoke}{resumed}{probe}{sequences}"
    )
