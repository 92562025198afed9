"""The trials of a config: the same training from several seeds."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from seqmem import models
from seqmem.results.experiment import Experiment
from seqmem.results.record import RunFolder, digest
from seqmem.tasks import task_for
from seqmem.training.backend import planned
from seqmem.training.config import check_fit, model_arguments, runner_config
from seqmem.training.engines.attempts import Attempt, one_by_one
from seqmem.training.engines.data_check import check_data
from seqmem.training.fingerprint import fingerprint
from seqmem.training.loop.splits import Data


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
    code = fingerprint(model, data, task_for(data.spec))
    return Experiment.of(folder, label, digest(config), code, data.describe(), planned(config))


def run_trials(config: Mapping[str, Any], data: Data, experiment: Experiment) -> list[RunFolder]:
    """Train ``runner.ntrials`` models, trial k with seed + k, where ``runner.name`` says; print a line after each.

    A finished trial is not repeated. If a different process is training one, it comes last, and its end is awaited.

    Args:
        config: a resolved, checked config: model, train, runner, dataset, seed, smoke_test.
        data: the data set that ``config["dataset"]`` describes.
        experiment: what :func:`experiment` returns for them.

    Returns:
        The trials' folders.

    Raises:
        Exception: the failure of the first trial that failed, after the other trials have run.
    """
    seeds = range(config["seed"], config["seed"] + config["runner"]["ntrials"])
    attempts = _runner(runner_config(config["runner"]).name)
    busy: list[int] = []
    failures: dict[int, Exception] = {}
    for wait, chosen in ((False, seeds), (True, busy)):
        for outcome in attempts(config, data, experiment, chosen, wait):
            folder = experiment.trial(outcome.seed).path
            if outcome.failure is not None:
                failures[outcome.seed] = outcome.failure
            elif outcome.record is None:
                busy.append(outcome.seed)
                print(f"another process trains {folder}: waited for after the others", flush=True)
            else:
                title = experiment.title(outcome.record["model"], outcome.record["dataset"])
                line = _summary_line(title, outcome.record, outcome.seed - seeds[0] + 1, len(seeds))
                logged = "".join(f", logged to {name} from its metrics" for name in outcome.logged)
                print(f"{line}; {'in' if outcome.trained else 'found in'} {folder}{logged}", flush=True)
    if failures:
        raise failures[min(failures)]
    return [experiment.trial(seed) for seed in seeds]


def _runner(name: str) -> Callable[..., Iterator[Attempt]]:
    if name == "ray":
        from seqmem.training.engines.ray_runner import spread

        return spread
    return one_by_one


def _summary_line(title: str, record: Mapping[str, Any], number: int, count: int) -> str:
    """Return the line that is printed after a trial: its results, and how sequences were computed."""
    name, result, floor = record["metric"], record["result"], record["irreducible_error"]
    irreducible = "" if floor is None else f" ({floor:.4f} is irreducible)"
    accuracy = record.get("linear_probe_accuracy")
    probe = "" if accuracy is None else f", linear classifier of the encodings {accuracy:.4f}"
    paths = ", ".join(sorted(set(record["recurrences"])))
    sequences = f", each sequence {paths}" if paths else ""
    smoke = ", smoke test" if record["smoke_test"] else ""
    resumed = "".join(f", resumed after {updates} updates" for updates in record["resumed_at"])
    return (
        f"{title}, trial {number} of {count} (seed {record['seed']}): "
        f"test {name} {result[f'test/{name}']:.4f}{irreducible}, validation {name} {result[f'val/{name}']:.4f} "
        f"at epoch {record['best_epoch'] + 1} of {record['epochs']}, {record['seconds']:.1f} s"
        f"{smoke}{resumed}{probe}{sequences}"
    )
