"""Attempts at trials, one after the other in this process."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from seqmem import plugins
from seqmem.io import interrupts
from seqmem.results.experiment import Experiment
from seqmem.training.config import runner_config
from seqmem.training.loop.splits import Data
from seqmem.training.loop.trackers import log_finished
from seqmem.training.loop.trial import run_trial


@dataclass(frozen=True)
class Attempt:
    """Outcome of one attempt at a trial; it has neither record nor failure if another process holds the trial's lock.

    Attributes:
        seed: of the trial.
        record: its run record, if it has finished.
        trained: it was trained by this attempt, and not found finished.
        logged: trackers that got the metrics of a trial that was found finished.
        failure: why it has not finished.
    """

    seed: int
    record: dict[str, Any] | None = None
    trained: bool = True
    logged: tuple[str, ...] = ()
    failure: Exception | None = None

    @property
    def is_busy(self) -> bool:
        """Whether another process holds the trial's lock."""
        return self.record is None and self.failure is None


def attempt(config: Mapping[str, Any], data: Data, experiment: Experiment, seed: int, wait: bool) -> Attempt:
    """Train a trial, unless it has finished; then log its metrics to trackers that lack them.

    Args:
        config: as for :func:`seqmem.training.engines.trials.run_trials`.
        data: the data set.
        experiment: with the trial's folder.
        seed: of the trial.
        wait: for another process that trains it; otherwise return at once.

    Raises:
        Exception: the trial failed.
    """
    plugins.load(config.get("seqmem", {}).get("plugins", ()))  # in a process of a different machine
    trial = experiment.trial(seed)
    with trial.lock(wait) as locked:
        if not locked:
            return Attempt(seed)
        experiment.refuse_others(seed)
        record = trial.finished()
        if record is not None:
            return Attempt(seed, record, trained=False, logged=log_finished(runner_config(config["runner"]), trial, record))
        return Attempt(seed, run_trial({**config, "seed": seed}, data, experiment))


def one_by_one(
    config: Mapping[str, Any], data: Data, experiment: Experiment, seeds: Iterable[int], wait: bool
) -> Iterator[Attempt]:
    """Attempt the trials of several seeds in order; arguments as for :func:`attempt`."""
    for seed in seeds:
        interrupts.raise_if_received()
        try:
            outcome = attempt(config, data, experiment, seed, wait)
        except Exception as error:
            interrupts.raise_if_received()
            outcome = Attempt(seed, failure=error)
        yield outcome
