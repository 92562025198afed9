"""A trained model on a split of a data set, measured as training measures it."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar
from torch import Tensor

from seqmem.data.batch import Batch
from seqmem.training.config import TrainConfig, evaluation_batch_size, limited, runner_config
from seqmem.training.loop.module import SequenceModule
from seqmem.training.loop.quiet import quiet_lightning
from seqmem.training.loop.trial import Data

Part = Literal["test", "validation", "train"]

PREFIXES: dict[Part, str] = {"test": "test/", "validation": "val/", "train": "train/"}
"""How the names of a split's metrics begin in a run's record."""


class Listener(pl.Callback):
    """Hears of every batch of an evaluation, whatever the split; a subclass writes :meth:`hear`."""

    def hear(self, batch: Batch, made: dict[str, Tensor]) -> None:
        """Take what is wanted of a batch and of what the module's step made of it."""
        raise NotImplementedError

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int, loader: int = 0
    ) -> None:
        """Called by Lightning."""
        self.hear(batch, outputs)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int, loader: int = 0
    ) -> None:
        """Called by Lightning."""
        self.hear(batch, outputs)


def evaluate(
    module: SequenceModule,
    data: Data,
    config: Mapping[str, Any],
    split: Part = "test",
    callbacks: Sequence[pl.Callback] = (),
) -> dict[str, float]:
    """Loss and metrics, named as in a run's record: ``test/...``, ``val/...`` or ``train/...``.

    Args:
        module: what is evaluated.
        data: the data set.
        config: a resolved, checked config, of which batch size, limits, precision and accelerator count.
        split: which part of the data. That of training is read in its own order, by the weights as they are.
        callbacks: told of every batch, with what the module's step gave.
    """
    train, runner = TrainConfig(**config["train"]), runner_config(config["runner"])
    loader = data.loader(split, evaluation_batch_size(train, data.spec), seed=None)
    limits = {"test": train.limit_test_batches, "validation": train.limit_val_batches, "train": train.limit_train_batches}
    batches = limited(len(loader), limits[split], config["smoke_test"])
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
        run = trainer.validate if split == "validation" else trainer.test
        [measured] = run(module, loader, verbose=False)
    return {PREFIXES[split] + name.partition("/")[2]: value for name, value in measured.items()}
