"""Trackers that get the metrics of a trial in addition to metrics.csv: TensorBoard, Weights & Biases, MLflow."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from seqmem.errors import UserError
from seqmem.io import interrupts
from seqmem.results.experiment import identity
from seqmem.results.record import RunFolder
from seqmem.training.loop.mlflow_run import MlflowRun, label, open_run

if TYPE_CHECKING:
    from seqmem.training.config import RunnerConfig


def tracker_names(runner: "RunnerConfig") -> list[str]:
    """Return the names of the trackers of a runner's config: ``tensorboard``, ``wandb``, ``mlflow at URI``."""
    names = [*(["tensorboard"] if runner.tensorboard else []), *(["wandb"] if runner.wandb is not None else [])]
    return names if runner.mlflow is None else [*names, label(runner.mlflow)]


def logged_to(runner: "RunnerConfig", loggers: Iterable[Logger]) -> list[str]:
    """Return the names of the trackers that have every metric so far: not a server of MLflow that stopped to answer."""
    incomplete = any(isinstance(logger, MlflowRun) and not logger.complete for logger in loggers)
    return tracker_names(replace(runner, mlflow=None) if incomplete else runner)


@contextmanager
def tracked(runner: "RunnerConfig", folder: RunFolder) -> Iterator[list[Logger]]:
    """Open the trackers of a runner's config, and close them however the trial ends.

    Files of TensorBoard and Weights & Biases lie in the trial's folder. A trial that resumes continues the same run of
    Weights & Biases and MLflow. Of several processes only the first has these runs.

    Args:
        runner: the config.
        folder: of the trial.

    Yields:
        Lightning's loggers; an empty list if there is none.

    Raises:
        UserError: Weights & Biases or MLflow cannot start a run.
    """
    loggers: list[Logger] = []
    if runner.tensorboard:
        loggers.append(TensorBoardLogger(folder.path, name=None, version="tensorboard"))
    with ExitStack() as runs:
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            if runner.wandb is not None:
                loggers.append(runs.enter_context(_wandb_run(runner, folder)))
            if runner.mlflow is not None:
                loggers.append(runs.enter_context(_mlflow_run(runner.mlflow, runner.mlflow_experiment, folder)))
        yield loggers


@contextmanager
def _wandb_run(runner: "RunnerConfig", folder: RunFolder) -> Iterator[Logger]:
    import wandb

    experiment, trial = folder.path.parent.name, folder.path.name
    try:
        run = wandb.init(
            project=runner.wandb_project,
            group=experiment,
            name=f"{experiment}/{trial}",
            id=identity(folder.read_record()),
            resume="allow",
            dir=folder.path,
            mode=runner.wandb,
            settings=wandb.Settings(silent=True, console="off"),
        )
    except wandb.errors.Error as error:
        raise UserError(f"runner.wandb: {str(error).rstrip('.')}; runner.wandb=offline needs no account") from None
    run.define_metric("*", step_metric="trainer/global_step")
    finished = False
    try:
        yield WandbLogger(experiment=run)
        finished = True
    finally:
        run.finish(exit_code=0 if finished else 1)


@contextmanager
def _mlflow_run(place: str, experiment: str, folder: RunFolder) -> Iterator[Logger]:
    run = open_run(place, experiment, folder)
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except BaseException:
        status = "KILLED" if interrupts.received() is not None else "FAILED"
        raise
    finally:
        run.close(status)


def log_finished(runner: "RunnerConfig", folder: RunFolder, record: Mapping[str, Any]) -> tuple[str, ...]:
    """Log the metrics of a finished trial to the trackers of a runner's config that did not get them in training.

    Args:
        runner: the config.
        folder: of the trial, whose record then names the trackers.
        record: of the trial.

    Returns:
        The names of those trackers that have all metrics now.

    Raises:
        UserError: Weights & Biases or MLflow cannot start a run, or metrics.csv is damaged.
    """
    lacking = [name for name in tracker_names(runner) if not _has(name, folder, record)]
    if not lacking:
        return ()
    chosen = replace(
        runner,
        tensorboard="tensorboard" in lacking,
        wandb=runner.wandb if "wandb" in lacking else None,
        mlflow=runner.mlflow if lacking[-1].startswith("mlflow") else None,
    )
    with tracked(chosen, folder) as loggers:
        for logger in loggers:
            for step, values in _history(folder, record):
                logger.log_metrics(values, step)
            logger.finalize("success")
    logged = logged_to(chosen, loggers)
    folder.write_record({**record, "trackers": [*record.get("trackers", []), *logged]})
    return tuple(logged)


def of_last(tested: Mapping[str, float]) -> dict[str, float]:
    """Return the test of the last weights under names that differ from those of the chosen checkpoint.

    >>> of_last({"test/accuracy": 0.5})
    {'test_last/accuracy': 0.5}
    """
    return {name.replace("test/", "test_last/", 1): value for name, value in tested.items() if name.startswith("test/")}


def _history(folder: RunFolder, record: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield the step and the metrics of each epoch, and of the tests, as they are logged in training."""
    step = 0
    for row in folder.read_metrics().to_dict("records"):
        known = {str(name): float(value) for name, value in row.items() if not math.isnan(value)}
        step = int(row["step"])
        yield step - 1, {name: value for name, value in known.items() if "/" in name or name == "epoch"}
    tested = {name: value for name, value in record["result"].items() if name.startswith("test/")}
    for values in (of_last(record.get("result_last") or {}), tested):
        if values:
            yield step, values | {"epoch": record["epochs"]}


def _has(name: str, folder: RunFolder, record: Mapping[str, Any]) -> bool:
    """Whether a finished trial was logged to a tracker; records of earlier versions do not name the trackers."""
    if "trackers" in record:
        return name in record["trackers"]
    return (folder.path / name).exists()
