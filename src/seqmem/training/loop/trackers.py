"""Trackers that get the metrics of a trial in addition to metrics.csv: TensorBoard, Weights & Biases."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from seqmem.errors import UserError
from seqmem.results.record import RunFolder

if TYPE_CHECKING:
    from seqmem.training.config import RunnerConfig


@contextmanager
def tracked(runner: "RunnerConfig", folder: RunFolder) -> Iterator[list[Logger]]:
    """Open the trackers of a runner's config, and close them however the trial ends.

    Their files lie in the trial's folder. A trial that resumes continues the same run of Weights & Biases. Of several
    processes only the first has that run.

    Args:
        runner: the config.
        folder: of the trial.

    Yields:
        Lightning's loggers; an empty list if there is none.

    Raises:
        UserError: Weights & Biases cannot start a run.
    """
    loggers: list[Logger] = []
    if runner.tensorboard:
        loggers.append(TensorBoardLogger(folder.path, name=None, version="tensorboard"))
    if runner.wandb is None or rank_zero_only.rank != 0:  # type: ignore[attr-defined]
        yield loggers
        return

    import wandb

    experiment, trial = folder.path.parent.name, folder.path.name
    try:
        run = wandb.init(
            project=runner.wandb_project,
            group=experiment,
            name=f"{experiment}/{trial}",
            id=f"{experiment.rpartition('_')[2]}-{trial}",
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
        yield [*loggers, WandbLogger(experiment=run)]
        finished = True
    finally:
        run.finish(exit_code=0 if finished else 1)
