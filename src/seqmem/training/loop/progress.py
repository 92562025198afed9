"""Progress of a training: a line at its start, then a bar with the time left in a terminal, or a line after each epoch.

A worker process has a status line instead, which its parent shows in its terminal.
"""

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import RichProgressBar

from seqmem.io import terminal
from seqmem.training.loop.recorder import EpochRecorder


class TimeLeft:
    """Estimate of the time until the last epoch ends, from the speed in this process.

    Args:
        epochs: number of the training.
    """

    def __init__(self, epochs: int):
        self.epochs = epochs
        self._start = time.monotonic()
        self._from = 0.0

    def start(self, position: float) -> None:
        """Start to measure at a position, in epochs."""
        self._start, self._from = time.monotonic(), position

    def words(self, position: float) -> str:
        """Return the time left at a position as words."""
        done = position - self._from
        if done <= 0:
            return "unknown time"
        return duration((time.monotonic() - self._start) / done * (self.epochs - position))


class ProgressLines(pl.Callback):
    """Prints a line after each epoch, for a training whose output is a file or a pipe.

    Args:
        title: begins each line.
        epochs: number of the training.
        recorder: a callback before this one, which has the row of the epoch.
        metric: name of the validation metric in the row.
        best: "max" or "min", the better end of the metric.
    """

    def __init__(self, title: str, epochs: int, recorder: EpochRecorder, metric: str, best: str):
        self._title, self._recorder, self._metric = title, recorder, metric
        self._left = TimeLeft(epochs)
        self._better = max if best == "max" else min

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start to measure."""
        self._left.start(_position(trainer))
        self._epoch_start = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the line."""
        now, row = time.monotonic(), self._recorder.rows[-1]
        epoch = row["epoch"] + 1
        name, value = self._metric.removeprefix("val/"), row[self._metric]
        finite = [each for each in self._recorder.rows if math.isfinite(each[self._metric])]
        best = self._better(finite, key=lambda each: each[self._metric]) if finite else row
        of_best = "" if best is row else f" (best {best[self._metric]:.4f} at epoch {best['epoch'] + 1})"
        left = f"; {self._left.words(epoch)} left" if epoch < self._left.epochs else ""
        if trainer.is_global_zero:
            print(
                f"{self._title}: epoch {epoch} of {self._left.epochs}: validation {name} {value:.4f}{of_best}, "
                f"training loss {row['train/loss']:.4g}, {duration(now - self._epoch_start)}{left}",
                flush=True,
            )
        self._epoch_start = now


class StatusLine(pl.Callback):
    """Shows position, validation and time left of the training as the status line of this process.

    Args:
        title: begins the line.
        epochs: number of the training.
        recorder: a callback before this one, which has the rows of the epochs.
        metric: name of the validation metric in a row.
        show: shows a line in the place of the last one.
    """

    def __init__(self, title: str, epochs: int, recorder: EpochRecorder, metric: str, show: Callable[[str], None]):
        self._title, self._recorder, self._metric, self._show = title, recorder, metric, show
        self._left = TimeLeft(epochs)
        self._shown = -math.inf

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start to measure."""
        self._left.start(_position(trainer))

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any, **keywords: Any) -> None:
        """Show the line, at most twice in a second."""
        if time.monotonic() < self._shown + 0.5:
            return
        self._shown, position = time.monotonic(), _position(trainer)
        rows, name = self._recorder.rows, self._metric.removeprefix("val/")
        validation = f", validation {name} {rows[-1][self._metric]:.4f}" if rows else ""
        done = f"epoch {trainer.current_epoch + 1} of {self._left.epochs}, {position / self._left.epochs:.0%}"
        self._show(f"{self._title}: {done}{validation}, {self._left.words(position)} left")


class TimedProgressBar(RichProgressBar):
    """A progress bar of each epoch that also shows the time left of the whole training."""

    def __init__(self, epochs: int):
        super().__init__(leave=False)
        self._left = TimeLeft(epochs)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start to measure."""
        super().on_train_start(trainer, pl_module)
        self._left.start(_position(trainer))

    def _get_train_description(self, current_epoch: int) -> str:
        """Count from 1, as the lines and the tables do; Lightning counts from 0."""
        return f"Epoch {current_epoch + 1} of {self._left.epochs}".ljust(len(self.validation_description))

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Return what stands next to the bar."""
        shown = super().get_metrics(trainer, pl_module)
        return {**shown, "left": self._left.words(_position(trainer))} if trainer.training else shown


class FirstLine(pl.Callback):
    """Prints a line at the start of a training: parameters, device, epochs and folder.

    Args:
        title: begins the line.
        folder: of the trial.
    """

    def __init__(self, title: str, folder: Path):
        self._title, self._folder = title, folder

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print it."""
        if not trainer.is_global_zero:
            return
        parameters = sum(parameter.numel() for parameter in pl_module.parameters())
        device = trainer.strategy.root_device
        cuda = device.type == "cuda"
        kind = torch.cuda.get_device_name(device) if cuda else _count(torch.get_num_threads(), "thread")
        several = f"{trainer.world_size} processes on " if trainer.world_size > 1 else ""
        every = trainer.accumulate_grad_batches
        updates = f" ({_count(_updates(trainer), 'update')} of {every} batches)" if every > 1 else ""
        resumed = f", resumes after {_count(trainer.global_step, 'update')}" if trainer.global_step else ""
        print(
            f"{self._title}: {parameters:,} parameters, {several}{device} ({kind}), {_count(trainer.max_epochs, 'epoch')} of "
            f"{_count(trainer.num_training_batches, 'batch', 'es')}{updates}{resumed}; in {self._folder}",
            flush=True,
        )


def progress(title: str, folder: Path, epochs: int, recorder: EpochRecorder, metric: str, best: str) -> list[pl.Callback]:
    """Return callbacks that show a training: a first line, then a bar in a terminal, and lines elsewhere."""
    bar: pl.Callback
    if terminal.status_line is not None:
        bar = StatusLine(title, epochs, recorder, metric, terminal.status_line)
    elif sys.stdout.isatty():
        bar = TimedProgressBar(epochs)
    else:
        bar = ProgressLines(title, epochs, recorder, metric, best)
    return [FirstLine(title, folder), bar]


def duration(seconds: float) -> str:
    """Return a duration in the two largest units that it needs.

    >>> [duration(seconds) for seconds in (0.25, 59, 150, 7260, 180_000)]
    ['0.2 s', '59 s', '2 min 30 s', '2 h 1 min', '2 d 2 h']
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, size, smaller, part in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {smaller}"
    return f"{whole} s"


def _count(number: float | None, noun: str, ending: str = "s") -> str:
    return f"{number} {noun}{'' if number == 1 else ending}"


def _position(trainer: pl.Trainer) -> float:
    """Return the number of epochs that are done, with the part of the current one."""
    return trainer.global_step / max(_updates(trainer), 1)


def _updates(trainer: pl.Trainer) -> int:
    """Return the number of optimiser steps of an epoch."""
    return math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
