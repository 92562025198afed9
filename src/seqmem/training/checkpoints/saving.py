"""Checkpoints of a training, which a kill or a full disk cannot cut."""

import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_utilities import apply_to_collection
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, distributed

from seqmem.io import interrupts
from seqmem.training.checkpoints.files import save_plain
from seqmem.training.config import TrainConfig
from seqmem.training.loop.module import SequenceModule
from seqmem.training.loop.not_finite import NotFiniteError, not_finite_tensor

_batches_between_checks = 10


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a temporary file and renames it, so that the old one stays until the new one is whole."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write ``checkpoint`` to ``path``."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save_plain(checkpoint, Path(path))


class BestCheckpoint(ModelCheckpoint):
    """Saves ``last.ckpt`` after each epoch, and ``best.ckpt`` if the monitored metric is the best so far."""

    def __init__(self, folder: Path, monitor: str, mode: str):
        super().__init__(
            folder,
            "best",
            monitor,
            mode=mode,
            save_on_train_epoch_end=True,  # when the epoch's row of metrics exists
            enable_version_counter=False,
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save both, if the weights are finite. Lightning's own last.ckpt would be that of the best epoch."""
        assert self.dirpath is not None
        last = Path(self.dirpath) / "last.ckpt"
        _check_finite(trainer, pl_module, last)
        super().on_train_epoch_end(trainer, pl_module)
        trainer.save_checkpoint(last)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a checkpoint, which may have been moved with its folder."""
        assert self.dirpath is not None
        here = str(Path(self.dirpath) / "best.ckpt") if state_dict["best_model_path"] else ""
        moved = {"dirpath": self.dirpath, "best_model_path": here, "kth_best_model_path": here}
        best = dict.fromkeys([here] if here else [], state_dict["best_model_score"])
        super().load_state_dict({**state_dict, **moved, "best_k_models": best, "last_model_path": ""})


class WithinEpoch(pl.Callback):
    """Writes ``last.ckpt`` within epochs, too: every few minutes, and before Ctrl-C or SIGTERM end the training.

    Such a checkpoint has the sums that training has gathered since the epoch began. One within the validation has no part of
    the latter's, which a resume repeats.

    Args:
        path: the file.
        minutes: between two checkpoints; 0 for one after each batch.
    """

    def __init__(self, path: Path, minutes: float):
        self.path = path
        self.seconds = 60 * minutes
        self._saving = False
        self._loaded: dict[str, Any] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the sums of the checkpoint from which the training resumes."""
        self._last_saved = time.monotonic()
        if self._loaded is not None:
            assert isinstance(pl_module, SequenceModule)
            gathered = self._loaded["processes"][trainer.global_rank]
            pl_module.continue_epoch(gathered, self._loaded["validates"])
            self._loaded = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop at a signal that came after the last epoch's checkpoint."""
        [stops] = _in_any_process(trainer, interrupts.received() is not None)
        if stops:
            raise interrupts.Interrupted

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start to measure again: each epoch ends with a checkpoint."""
        self._last_saved = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a checkpoint if it is due or there was a signal, and the weights are finite; stop at a signal.

        Several processes check every ten batches.
        """
        # After the last batch, Lightning would resume after the validation, which has not run.
        if not trainer.is_last_batch and self._checks(trainer, batch_idx):
            self._save_or_stop(trainer, pl_module, time.monotonic() >= self._last_saved + self.seconds)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write a checkpoint and stop at a signal."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._save_or_stop(trainer, pl_module, due=False)
        else:
            interrupts.raise_if_received()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write a checkpoint and stop at a signal."""
        if trainer.state.fn == TrainerFn.FITTING:
            if self._checks(trainer, batch_idx):
                self._save_or_stop(trainer, pl_module, due=False)
        else:
            interrupts.raise_if_received()

    def on_test_batch_end(self, *_: Any, **__: Any) -> None:
        """Stop at a signal."""
        interrupts.raise_if_received()

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the sums of the epoch so far."""
        if not self._saving:
            return
        assert isinstance(pl_module, SequenceModule)
        checkpoint["within_epoch"] = {
            "processes": _from_all_processes(pl_module.within_epoch(), trainer.world_size),
            "validates": trainer.validating,
        }
        if trainer.validating:
            loop = checkpoint["loops"]["fit_loop"]
            loop["epoch_loop.val_loop.batch_progress"] = deepcopy(_first_batch)
            loop["state_dict"]["combined_loader"] = [{"batches": 0}]  # the next pass is that of the next epoch

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the sums until the module is on its device."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._loaded = checkpoint.get("within_epoch")

    def _checks(self, trainer: pl.Trainer, batch_idx: int) -> bool:
        """Return whether to check for a signal after a batch; not after each if several processes wait for each other."""
        return trainer.world_size == 1 or self.seconds == 0 or batch_idx % _batches_between_checks == 0

    def _save_or_stop(self, trainer: pl.Trainer, module: pl.LightningModule, due: bool) -> None:
        """Write a checkpoint if it is due or there was a signal, and stop at a signal: all processes at the same batch."""
        stops, due = _in_any_process(trainer, interrupts.received() is not None, due)
        if stops or due:
            self._save(trainer, module)
        if stops:
            raise interrupts.Interrupted

    def _save(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        _check_finite(trainer, module, self.path)
        self._saving = True
        trainer.save_checkpoint(self.path)
        self._saving = False
        self._last_saved = time.monotonic()


def _in_any_process(trainer: pl.Trainer, *wishes: bool) -> list[bool]:
    """Return which of the wishes any process has; each must call it."""
    if trainer.world_size == 1:
        return list(wishes)
    mine = torch.tensor(wishes, dtype=torch.float32, device=trainer.strategy.root_device)
    found: list[bool] = (trainer.strategy.reduce(mine, reduce_op="sum") > 0).tolist()
    return found


# Progress of a validation that stopped in its first batch: Lightning repeats that batch and runs the others.
_first_batch = {
    **{key: {"ready": 1, "started": 1, "processed": 0, "completed": 0} for key in ("total", "current")},
    "is_last_batch": False,
}


def _from_all_processes(value: Any, count: int) -> list[Any]:
    """Return the values of all processes in the order of their ranks; each must call it."""
    if count == 1:
        return [value]
    values: list[Any] = [None] * count
    distributed.all_gather_object(values, apply_to_collection(value, Tensor, Tensor.cpu))
    return values


def _check_finite(trainer: pl.Trainer, module: pl.LightningModule, last: Path) -> None:
    """Check the weights before a checkpoint replaces the last good one.

    Raises:
        NotFiniteError: a weight, or a loss that was not checked yet, is not finite.
    """
    if isinstance(module, SequenceModule):
        module.losses.wait()  # its error names the batch
    broken = not_finite_tensor(module.named_parameters())
    if not broken:
        return
    config = module.train_config
    assert isinstance(config, TrainConfig)
    kept = f"{last} holds the last finite ones" if last.exists() else "there is no checkpoint yet"
    rate = trainer.optimizers[0].param_groups[0]["lr"]
    raise NotFiniteError.of(
        f"{broken} is no longer finite after step {trainer.global_step}, in epoch {trainer.current_epoch + 1} "
        f"(learning rate {rate:g}); {kept}",
        config.advice,
        (trainer.current_epoch, int(trainer.num_training_batches)),
    )
