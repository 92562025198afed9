"""Recorder of metrics, throughput and peak memory."""

import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn

from seqmem.results.record import RunFolder


class EpochRecorder(pl.Callback):
    """Writes a run folder's ``metrics.csv`` after each epoch, whole, so that no line is ever cut.

    A row holds epoch, step, seconds (since the start of training), sequences_per_second (training batches only) and every
    logged metric. A checkpoint holds the rows so far, so that a resumed training has each row once.

    Attributes:
        rows: one for each epoch that has ended.
        resumed_at: number of updates before each resume.
        seconds_before: seconds of training before the last resume.
    """

    def __init__(self, folder: RunFolder):
        self.folder = folder
        self.rows: list[dict[str, Any]] = []
        self.resumed_at: list[int] = []
        self.seconds_before = 0.0
        self._sequences, self._training_seconds = 0, 0.0
        self._start = time.perf_counter()

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the rows so far into a checkpoint."""
        checkpoint["epoch_recorder"] = {
            "rows": self.rows,
            "resumed_at": self.resumed_at,
            "seconds": time.perf_counter() - self._start,
            "sequences": self._sequences,
            "training_seconds": self._training_seconds,
        }

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Resume from a checkpoint, unless it is loaded for a test."""
        if trainer.state.fn == TrainerFn.FITTING:
            saved = checkpoint["epoch_recorder"]
            self.rows = list(saved["rows"])
            self.resumed_at = [*saved["resumed_at"], checkpoint["global_step"]]
            self.seconds_before = saved["seconds"]
            self._sequences, self._training_seconds = saved["sequences"], saved["training_seconds"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start to measure."""
        self._start = time.perf_counter() - self.seconds_before

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the throughput."""
        self._sequences, self._training_seconds = 0, 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Start to measure the batch."""
        self._batch_start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the batch's sequences and its time."""
        self._sequences += len(batch)
        self._training_seconds += time.perf_counter() - self._batch_start

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch's row. Validation has run by now."""
        self.rows.append(
            {
                "epoch": trainer.current_epoch,
                "step": trainer.global_step,
                "seconds": round(time.perf_counter() - self._start, 3),
                "sequences_per_second": round(self._sequences / max(self._training_seconds, 1e-9), 2),
                **{name: value.item() for name, value in trainer.callback_metrics.items()},
            }
        )
        if trainer.is_global_zero:
            self.folder.write_metrics(self.rows)


def reset_peak_memory() -> None:
    """Reset the peak of earlier trials in this process, where the system can."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mib(device: torch.device) -> float:
    """Return the peak memory in MiB since :func:`reset_peak_memory`: of a CUDA device, otherwise of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    with suppress(OSError):
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
