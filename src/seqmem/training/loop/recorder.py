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

    A row holds epoch, step, seconds (since the start of training), sequences_per_second and every logged metric. A checkpoint
    holds the rows so far, so that a resumed training has each row once. The throughput is that of training batches alone. On a
    GPU, where they overlap, it is measured from the first batch of an epoch until all of its work is done.

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
        self._batch_start: float | None = None
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
        self._sequences, self._training_seconds, self._batch_start = 0, 0.0, None

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Start to measure the batch; on a GPU the epoch, since its batches overlap."""
        if self._batch_start is None or pl_module.device.type != "cuda":
            self._batch_start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the batch's sequences and its time."""
        self._sequences += len(batch)
        assert self._batch_start is not None
        if trainer.is_last_batch and pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        now = time.perf_counter()
        self._training_seconds += now - self._batch_start
        self._batch_start = now

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


def reset_peak_memory(device: torch.device) -> None:
    """Reset the peak of earlier trials: of a CUDA device, otherwise of this process, where the system can."""
    if device.type == "cuda":
        if torch.cuda.is_initialized():  # otherwise there is no peak, and torch raises "did you call init?"
            torch.cuda.reset_peak_memory_stats(device)
        return
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
