"""The best weights of a training in memory, and early stopping."""

import math
from collections.abc import Sequence
from typing import Literal

import pytorch_lightning as pl
from torch import Tensor, nn

from seqmem.training.loop.recorder import EpochRecorder


class Patience:
    """Early stopping: a training stops after a number of epochs without a better validation value.

    It has no state: what to do follows from the values of all epochs so far, which checkpoints hold anyway.

    Args:
        epochs: number of epochs; None never stops.
        best: "min" or "max", the better end of the values.
        min_delta: a value is better if it improves the best one by more than this.
    """

    def __init__(self, epochs: int | None, best: Literal["min", "max"], min_delta: float = 0.0):
        self.epochs, self.best, self.min_delta = epochs, best, min_delta

    def best_epoch(self, values: Sequence[float]) -> int:
        """Return the number of the last epoch with a better value, from 0; -1 if no value is finite."""
        sign, reached, found = (1 if self.best == "min" else -1), math.inf, -1
        for epoch, value in enumerate(values):
            if math.isfinite(value) and (found < 0 or sign * value < reached - self.min_delta):
                reached, found = sign * value, epoch
        return found

    def reason(self, values: Sequence[float], name: str = "validation") -> str:
        """Return why a training stops after these values, or an empty string if it does not.

        Args:
            values: of all epochs so far.
            name: of the values.
        """
        found = self.best_epoch(values)
        if self.epochs is None or len(values) - 1 - found < self.epochs:
            return ""
        waited = f"{self.epochs} epoch{'s' if self.epochs > 1 else ''}"
        if found < 0:
            return f"no finite {name} in {waited}"
        least = f" by more than {self.min_delta:g}" if self.min_delta else ""
        return f"no {name} better than {values[found]:.6g} of epoch {found + 1}{least} in {waited}"


class EarlyStop(pl.Callback):
    """Stops a training after an epoch, or at once if it resumes where it stopped before.

    Args:
        patience: when.
        recorder: a callback before this one, which has the values of the epochs.
        metric: name of the validation metric in its rows.
        epochs: number of the training.
    """

    def __init__(self, patience: Patience, recorder: EpochRecorder, metric: str, epochs: int):
        self.patience, self.recorder, self.metric, self.epochs = patience, recorder, metric, epochs

    @property
    def reason(self) -> str:
        """Why the training stopped before its last epoch; empty if it did not."""
        rows = self.recorder.rows
        return self.patience.reason([row[self.metric] for row in rows], self.metric) if len(rows) < self.epochs else ""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop a training that was killed between its last epoch and the end of its test."""
        self._stop(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop after the epoch; the checkpoint of the epoch is still written."""
        self._stop(trainer)

    def _stop(self, trainer: pl.Trainer) -> None:
        if self.reason:
            trainer.should_stop = True


class BestWeights:
    """Weights with the smallest validation error so far, kept on the CPU.

    Args:
        patience: number of validations without a smaller error after which the training should stop; None for never.
    """

    def __init__(self, patience: int | None):
        self._patience = Patience(patience, "min")
        self._weights: dict[str, Tensor] = {}
        self._errors: list[float] = []

    def update(self, error: float, model: nn.Module) -> bool:
        """Keep the weights if the error is the smallest so far; return whether the training should stop."""
        self._errors.append(error)
        if self._patience.best_epoch(self._errors) == len(self._errors) - 1:
            self._weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        return bool(self._patience.reason(self._errors))

    def restore(self, model: nn.Module) -> None:
        """Load the best weights into the model; without any validation nothing changes."""
        if self._weights:
            model.load_state_dict(self._weights)
