"""Training in memory, for programs that bring their own batches: nothing is written, no checkpoint is chosen."""

from collections.abc import Iterable, Sequence
from typing import Any

import pytorch_lightning as pl

from seqmem.data.batch import Batch
from seqmem.training.loop.freed_memory import freed_memory_kept
from seqmem.training.loop.module import SequenceModule
from seqmem.training.loop.quiet import quiet_lightning


def fit(
    module: SequenceModule,
    batches: Iterable[Batch],
    epochs: int,
    callbacks: Sequence[pl.Callback] = (),
    optimizer_state: dict[str, Any] | None = None,
) -> dict[str, Any] | None:
    """Train a module in place, on a GPU if there is one, and leave it on the CPU.

    Args:
        module: what is trained, by the optimiser of its config.
        batches: read once an epoch, as a DataLoader is.
        epochs: how many.
        callbacks: told of every epoch and batch.
        optimizer_state: what an earlier call returned, to go on from there; None to begin anew.

    Returns:
        The optimiser's state after the last step, tensors and plain values; without any epoch, the one that was given.
    """
    optimizer = _OptimizerState(optimizer_state)
    with quiet_lightning(), freed_memory_kept():
        trainer = pl.Trainer(
            accelerator="auto",
            devices=1,
            max_epochs=epochs,
            gradient_clip_val=module.train_config.gradient_clip_val or None,
            callbacks=[optimizer, *callbacks],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        trainer.fit(module.train(), batches)
    return optimizer.state


class _OptimizerState(pl.Callback):
    """Gives the optimiser its state before the first step, and takes it after the last."""

    def __init__(self, state: dict[str, Any] | None):
        self.state = state

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.state is not None:
            trainer.optimizers[0].load_state_dict(self.state)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.state = trainer.optimizers[0].state_dict()
