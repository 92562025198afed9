"""A trained model on a split of a data set, measured as training measures it."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar

from seqmem.training.config import TrainConfig, evaluation_batch_size, limited, runner_config
from seqmem.training.module import SequenceModule
from seqmem.training.quiet import quiet_lightning
from seqmem.training.trial import Data


def evaluate(
    module: SequenceModule,
    data: Data,
    config: Mapping[str, Any],
    split: Literal["validation", "test"] = "test",
    callbacks: Sequence[pl.Callback] = (),
) -> dict[str, float]:
    """Loss and metrics, named as in a run's record: ``test/...`` or ``val/...``.

    Args:
        module: what is evaluated.
        data: the data set.
        config: a resolved, checked config, of which batch size, limits, precision and accelerator count.
        split: which part of the data.
        callbacks: told of every batch, with what the module's step gave.
    """
    train, runner = TrainConfig(**config["train"]), runner_config(config["runner"])
    loader = data.loader(split, evaluation_batch_size(train, data.spec))
    limit = train.limit_test_batches if split == "test" else train.limit_val_batches
    batches = limited(len(loader), limit, config["smoke_test"])
    interactive = sys.stdout.isatty()
    with quiet_lightning():
        trainer = pl.Trainer(
            accelerator=runner.accelerator,
            devices=1,
            precision=train.precision,
            limit_test_batches=batches,
            limit_val_batches=batches,
            callbacks=[*callbacks, *([RichProgressBar(leave=False)] if interactive else [])],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=interactive,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        run = trainer.test if split == "test" else trainer.validate
        [measured] = run(module, loader, verbose=False)
    return dict(measured)
