"""Repeat the steps since a trial's last checkpoint, to find where something became not finite.

A loss on the CPU is checked at once, so that its step can be computed again on the spot. Losses of a GPU are checked some steps
later, and gradients and weights only when a checkpoint is due, so that a training pays nothing for it. By then the weights
are lost. A trial resumes from its checkpoint with the same numbers, so the steps are repeated with a check after each.
"""

import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning import seed_everything

from seqmem.io import interrupts
from seqmem.results.experiment import Experiment
from seqmem.results.record import RunFolder
from seqmem.training.checkpoints.saving import BestCheckpoint, WithinEpoch
from seqmem.training.checkpoints.seeds import StepSeeds
from seqmem.training.config import TrainConfig, runner_config
from seqmem.training.engines.ranks import in_ranks
from seqmem.training.loop.averaging import WeightAverage
from seqmem.training.loop.build import module_for, trainer_for
from seqmem.training.loop.loss_check import LossCheck
from seqmem.training.loop.module import SequenceModule
from seqmem.training.loop.not_finite import Finding, NotFiniteError, not_finite_tensor
from seqmem.training.loop.precision import fast_products
from seqmem.training.loop.quiet import quiet_lightning
from seqmem.training.loop.recorder import EpochRecorder
from seqmem.training.loop.splits import Data, Splits

# The gradients of several processes have been added up: the one that finds the cause in its own rows ends them all.
_seconds_for_others = 5


def explained(
    error: NotFiniteError, config: Mapping[str, Any], data: Data, experiment: Experiment, folder: RunFolder
) -> NotFiniteError:
    """Return the error of a trial with what was first not finite, as far as repeating its steps shows it.

    Args:
        error: of the trial.
        config: of the trial.
        data: the data set.
        experiment: of the trial.
        folder: of the trial; its last checkpoint stays as it is.
    """
    if error.is_explained:
        return error
    print(f"{error.fact}; repeating the steps since the last checkpoint to find the cause", flush=True)
    finding, devices = error.finding, runner_config(config["runner"]).devices
    try:
        with TemporaryDirectory(ignore_cleanup_errors=True) as place:
            arguments = error.position, config, data, experiment, _copy(folder, Path(place))
            _repeat(*arguments) if devices == 1 else in_ranks(devices, _repeat, *arguments)
    except NotFiniteError as found:
        finding = found.finding
    except Exception as failure:  # the trial's own error is the one to report
        print(f"the repetition failed ({' '.join(f'{type(failure).__name__}: {failure}'.split())})", flush=True)
    interrupts.raise_if_received()
    return NotFiniteError.of(error.fact, error.advice, error.position, finding)


def _copy(folder: RunFolder, place: Path) -> RunFolder:
    """Return a folder with copies of the checkpoints that there are."""
    again = RunFolder(place)
    again.clear()
    for path in (folder.checkpoints / name for name in ("best.ckpt", "last.ckpt")):
        if path.exists():
            shutil.copyfile(path, again.checkpoints / path.name)
    return again


def _repeat(until: tuple[int, int], config: Mapping[str, Any], data: Data, experiment: Experiment, folder: RunFolder) -> None:
    """Train from the folder's last checkpoint, or from the beginning, until something is not finite.

    Args:
        until: number of the epoch and of the batch after which to stop.
        config: of the trial.
        data: the data set.
        experiment: of the trial.
        folder: a temporary one.

    Raises:
        NotFiniteError: with its finding.
    """
    train, runner = TrainConfig(**config["train"]), runner_config(config["runner"])
    checkpoint = folder.checkpoints / "last.ckpt"
    found = checkpoint if checkpoint.exists() else None
    seed_everything(config["seed"], workers=True, verbose=False)
    splits = Splits.of(data, train, config["seed"], config["smoke_test"])
    module = module_for(config, data, experiment, splits, found)
    module.losses, module.keeps_step = LossCheck(train.advice, deferred=False), True
    average = [] if train.ema is None else [WeightAverage(train.ema)]
    within = WithinEpoch(checkpoint, minutes=float("inf"))
    best = BestCheckpoint(folder.checkpoints, f"val/{module.task.metric}", module.task.best)
    callbacks = [best, StepSeeds(config["seed"]), EpochRecorder(folder), *average, within, _Watch(until)]
    with quiet_lightning(), fast_products(train, runner), interrupts.deferred():
        trainer = trainer_for(config, splits, callbacks, [])
        module.model.prepare(splits.read("train"))
        splits = splits.on(trainer.strategy.root_device, train.input_type)
        with suppress(_Passed):
            trainer.fit(module, splits.loaders["train"], splits.loaders["validation"], ckpt_path=found, weights_only=True)


class _Passed(Exception):
    """The step at which the trial failed is over, and everything is finite."""


class _Watch(pl.Callback):
    """Ends the training at the first gradient, weight or buffer that is not finite, or after a batch.

    Args:
        until: number of the epoch and of the batch.
    """

    def __init__(self, until: tuple[int, int]):
        self._until = until

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the gradients of a batch; the weights are those of its forward pass."""
        assert isinstance(pl_module, SequenceModule)
        broken = not_finite_tensor((name, weight.grad) for name, weight in pl_module.model.named_parameters())
        if broken:
            finding = pl_module.find()
            if finding is None and trainer.world_size > 1:
                time.sleep(_seconds_for_others)
            layer = broken.rpartition(".")[0]
            raise _at_this_step(trainer, finding or Finding("gradient", f"the gradient of {broken}", layer, broken))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check the weights after an update, and whether the failed step is over."""
        assert isinstance(pl_module, SequenceModule)
        broken = not_finite_tensor((name, weight) for name, weight in pl_module.model.named_parameters())
        if broken:
            weight = pl_module.model.get_parameter(broken)
            largest = 0.0 if weight.grad is None else torch.nan_to_num(weight.grad).abs().max().item()
            words = f"{broken} after an update by gradients of at most {largest:.3g}"
            raise _at_this_step(trainer, Finding("update", words, broken.rpartition(".")[0], broken))
        if (trainer.current_epoch, batch_idx) > self._until:
            raise _Passed


def _at_this_step(trainer: pl.Trainer, finding: Finding) -> NotFiniteError:
    """Return the error of a finding in the current step, whose position its words name."""
    epoch, batch = trainer.current_epoch, trainer.fit_loop.batch_idx
    words = f"{finding.words} (batch {batch} of epoch {epoch + 1})"
    return NotFiniteError.of("", "", (epoch, batch), Finding(**{**vars(finding), "words": words}))
