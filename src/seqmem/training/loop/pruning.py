"""Pruning: a search judges a trial by its validation after each epoch, and may stop it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl

from seqmem.training.loop.recorder import EpochRecorder

Judge = Callable[[int, float, bool], bool]
"""Takes the number of epochs so far, the validation after them, and whether they are all; returns whether to stop the trial."""

judge: Judge | None = None
"""Judges the trial of this process; None outside of a search with a pruner."""


@contextmanager
def judged(by: Judge | None) -> Iterator[None]:
    """Let a judge stop the trials of this process within the block."""
    global judge
    before, judge = judge, by
    try:
        yield
    finally:
        judge = before


class Pruning(pl.Callback):
    """Stops a training after an epoch when the judge says so; the epoch's checkpoint is saved.

    Args:
        recorder: a callback before this one, which has the row of the epoch.
        metric: name of the validation metric in the row.
        epochs: number of the training.
        judge: see :data:`Judge`.

    Attributes:
        reason: why the training was stopped; empty if it was not.
    """

    def __init__(self, recorder: EpochRecorder, metric: str, epochs: int, judge: Judge):
        self.reason = ""
        self._recorder, self._metric, self._epochs, self._judge = recorder, metric, epochs, judge

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop a trial at once that resumes although the judge has stopped it: the command was interrupted after that."""
        if self._recorder.rows:
            self._ask(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ask the judge, whose answer does not count after the last epoch."""
        self._ask(trainer)

    def _ask(self, trainer: pl.Trainer) -> None:
        row: dict[str, Any] = self._recorder.rows[-1]
        done, value = row["epoch"] + 1, row[self._metric]
        is_last = done >= self._epochs
        if self._judge(done, value, is_last) and not is_last:
            name = self._metric.removeprefix("val/")
            self.reason = f"pruned by the search after epoch {done} of {self._epochs}: validation {name} {value:.4f}"
            trainer.should_stop = True
