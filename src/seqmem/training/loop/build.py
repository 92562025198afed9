"""The module and the Lightning trainer of a trial's config."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy

from seqmem import models
from seqmem.results.experiment import Experiment
from seqmem.tasks import task_for
from seqmem.training.checkpoints.files import check_weights, read_checkpoint
from seqmem.training.checkpoints.saving import AtomicCheckpointIO
from seqmem.training.config import TrainConfig, model_arguments, runner_config, updates_per_epoch
from seqmem.training.loop.module import SequenceModule
from seqmem.training.loop.splits import Data, Splits

Config = Mapping[str, Any]


def module_for(config: Config, data: Data, experiment: Experiment, splits: Splits, checkpoint: Path | None) -> SequenceModule:
    """Build the model with its initial weights; check that a checkpoint's weights fit it."""
    spec = data.spec
    train = TrainConfig(**config["train"])
    model, updates = models.build(model_arguments(config), spec), updates_per_epoch(splits.counts["train"], train)
    if config["smoke_test"] and isinstance(train.warmup_steps, int):  # whose steps may be fewer than those of the warm-up
        train = replace(train, warmup_steps=min(train.warmup_steps, updates * train.epochs))
    module = SequenceModule(model, task_for(spec), train, updates)
    if checkpoint:
        check_weights(module, read_checkpoint(checkpoint).weights, checkpoint)
    saved = {"config": dict(config), "spec": asdict(spec), "data": experiment.data, "backend": experiment.backend}
    module.save_hyperparameters(saved)
    prepare = getattr(data, "preparation", None)
    # In checkpoints alone: trackers log what the line above saves, and a vocabulary has thousands of words.
    module.hparams["preparation"] = prepare() if prepare else None
    return module


def epochs(config: Config) -> int:
    """Return the number of epochs, of which a smoke test has one."""
    count = TrainConfig(**config["train"]).epochs
    return min(count, 1) if config["smoke_test"] else count


def trainer_for(config: Config, splits: Splits, callbacks: list[pl.Callback], loggers: list[Logger]) -> pl.Trainer:
    """Create the Lightning trainer of a config."""
    train, runner = TrainConfig(**config["train"]), runner_config(config["runner"])
    alone = runner.devices == 1
    return pl.Trainer(
        accelerator=runner.accelerator,
        devices=runner.devices,
        precision=train.precision,
        max_epochs=epochs(config),
        accumulate_grad_batches=train.accumulate_grad_batches,
        limit_train_batches=splits.counts["train"],
        limit_val_batches=splits.counts["validation"],
        limit_test_batches=splits.counts["test"],
        strategy="auto" if alone else DDPStrategy(find_unused_parameters=True),
        plugins=[AtomicCheckpointIO(), *([] if alone else [LightningEnvironment()])],
        callbacks=callbacks,
        logger=loggers or False,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
