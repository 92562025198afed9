"""Attempts at trials, one after the other in this process."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from seqmem.results.experiment import Experiment
from seqmem.training.loop.trial import Data, run_trial


@dataclass(frozen=True)
class Attempt:
    """What came of an attempt at a trial; neither a record nor a failure if another process trains it.

    Attributes:
        seed: of the trial.
        record: its run record, if it has finished.
        trained: whether now, rather than found finished.
        failure: why it has not finished.
    """

    seed: int
    record: dict[str, Any] | None = None
    trained: bool = True
    failure: Exception | None = None


def attempt(config: Mapping[str, Any], data: Data, experiment: Experiment, seed: int, wait: bool) -> Attempt:
    """Train a trial, unless it has finished or, without ``wait``, another process trains it.

    Args:
        config: as for :func:`seqmem.training.engines.trials.run_trials`.
        data: the data set.
        experiment: where the trial's folder is.
        seed: of the trial.
        wait: for another process that trains it.

    Raises:
        Exception: the trial failed.
    """
    trial = experiment.trial(seed)
    with trial.lock(wait) as held:
        if not held:
            return Attempt(seed)
        record = trial.finished()
        if record is not None:
            return Attempt(seed, record, trained=False)
        return Attempt(seed, run_trial({**config, "seed": seed}, data, experiment))


def one_by_one(
    config: Mapping[str, Any], data: Data, experiment: Experiment, seeds: Iterable[int], wait: bool
) -> Iterator[Attempt]:
    """Attempt the trials of several seeds in their order; arguments as for :func:`attempt`."""
    for seed in seeds:
        try:
            made = attempt(config, data, experiment, seed, wait)
        except Exception as error:
            made = Attempt(seed, failure=error)
        yield made
