"""Evaluation of a trained model on a split of a data set, with the metrics of its training."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar
from torch import Tensor

from seqmem.data.batch import Batch
from seqmem.training.backend import cudnn_as_matmul
from seqmem.training.config import TrainConfig, evaluation_batch_size, runner_config
from seqmem.training.loop.copied_ahead import ahead_loader
from seqmem.training.loop.module import SequenceModule
from seqmem.training.loop.precision import fast_products
from seqmem.training.loop.quiet import quiet_lightning
from seqmem.training.loop.splits import Data, limit_batches

Part = Literal["test", "validation", "train"]

PREFIXES: dict[Part, str] = {"test": "test/", "validation": "val/", "train": "train/"}
"""Prefix of the names of a split's metrics in a run's record."""


class BatchObserver(pl.Callback):
    """Gets every batch of an evaluation, whatever the split; a subclass implements :meth:`observe`."""

    def observe(self, batch: Batch, results: dict[str, Tensor]) -> None:
        """Process a batch and what the module's step returned for it."""
        raise NotImplementedError

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int, loader: int = 0
    ) -> None:
        """Called by Lightning."""
        self.observe(batch, outputs)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int, loader: int = 0
    ) -> None:
        """Called by Lightning."""
        self.observe(batch, outputs)


def evaluate(
    module: SequenceModule,
    data: Data,
    config: Mapping[str, Any],
    split: Part = "test",
    callbacks: Sequence[pl.Callback] = (),
) -> dict[str, float]:
    """Return loss and metrics, named as in a run's record: ``test/...``, ``val/...`` or ``train/...``.

    Args:
        module: with the trained model.
        data: the data set.
        config: a resolved, checked config; batch size, limits, precision and accelerator are used.
        split: part of the data. The training split is read in the data set's order, with fixed weights.
        callbacks: called with every batch and its results.
    """
    train, runner = TrainConfig(**config["train"]), runner_config(config["runner"])
    loader = data.loader(split, evaluation_batch_size(train, data.spec), seed=None)
    batches = limit_batches(loader, train.limits[split], config["smoke_test"])
    interactive = sys.stdout.isatty()
    with quiet_lightning(), fast_products(train, runner), cudnn_as_matmul():
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
        [measured] = run(module, ahead_loader(loader, trainer.strategy.root_device, train.input_type), verbose=False)
    return {PREFIXES[split] + name.partition("/")[2]: value for name, value in measured.items()}
