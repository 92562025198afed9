"""The LightningModule: a model and a task, trained with one optimiser."""

from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_utilities import apply_to_collection
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from seqmem.data.batch import Batch
from seqmem.models import SequenceModel
from seqmem.tasks import Task
from seqmem.training.config import TrainConfig
from seqmem.training.loop.finite import not_finite
from seqmem.training.loop.mean import WeightedMean
from seqmem.training.optimisation.optimizers import optimizer_for, schedule_for


class SequenceModule(pl.LightningModule):
    """Trains ``model`` on ``task``; logs ``SPLIT/loss`` and ``SPLIT/METRIC`` once an epoch for train, val and test.

    Where the data set's batches are contiguous, the model's state after a batch is its state before the next one of the split.
    The gradient stops between them (truncated back-propagation), and each pass over a split begins without a state. A
    checkpoint within an epoch holds the state, one between epochs does not.

    Of several processes (Lightning's DDP), each is given whole batches and takes its rows of them: of R processes, every R-th
    row. Losses are weighted such that the mean of the processes' gradients is the gradient of the whole batch.

    Of a model that finds boundaries, val and test also log ``SPLIT/boundary_rate_K`` for each layer K from 1, the lowest: the
    fraction of steps at which its indicator is above a half, in the first batches that have ``boundary_steps`` together.

    Attributes:
        boundary_steps: steps of a split that are looked at; their boundaries take a second pass.
    """

    boundary_steps: float = 1000

    def __init__(self, model: SequenceModel, task: Task, train: TrainConfig):
        super().__init__()
        self.model = model
        self.task = task
        self.train_config = train
        self.train_metrics, self.val_metrics, self.test_metrics = task.metrics(), task.metrics(), task.metrics()
        # Means of our own, not Lightning's: a checkpoint within an epoch holds what they have gathered.
        self.means = nn.ModuleDict()
        self._carry = torch.compile(model.carry) if train.compile else model.carry
        self._states: dict[str, Any] = {}
        self._steps_seen = 0

    def forward(self, batch: Batch) -> Tensor:
        """The model's outputs."""
        return self.model(batch)

    def on_train_epoch_start(self) -> None:
        """Begin without a state; what the model schedules by epochs follows the trainer's."""
        self._begin("train")
        self.model.on_epoch(self.current_epoch)

    def on_validation_epoch_start(self) -> None:
        """Begin without a state."""
        self._begin("val")

    def on_test_epoch_start(self) -> None:
        """Begin without a state."""
        self._begin("test")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What the model schedules goes back to the checkpoint's epoch."""
        self.model.on_epoch(checkpoint["epoch"])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch, with the model's penalty, which train/loss leaves out."""
        own, part = self._own_rows(batch)
        loss, _ = self._shared_step("train", self.model.augment(own), self.train_metrics, part > 0)
        if part != 1:
            loss = loss * part
        penalty = self.model.penalty()
        if penalty is not None:
            self._log_mean("train", "penalty", penalty, len(batch))
            loss = loss + penalty
        if not torch.isfinite(loss):
            raise not_finite(
                loss,
                self.current_epoch,
                batch_idx,
                self.global_step,
                self.trainer.optimizers[0],
                self.parameters(),
                self.train_config,
            )
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Loss and metrics of one batch; gives its ``outputs`` and, if they were looked at, its ``boundaries`` (B, T, L)."""
        return self._evaluation_step("val", batch, self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Loss and metrics of one batch; gives its ``outputs`` and, if they were looked at, its ``boundaries`` (B, T, L)."""
        return self._evaluation_step("test", batch, self.test_metrics)

    def configure_optimizers(self) -> Any:
        """The config's optimiser and schedule."""
        optimizer = optimizer_for(self.model, self.train_config)
        schedule = schedule_for(optimizer, self.train_config)
        if schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule[0], "interval": schedule[1]}}

    def _begin(self, split: str) -> None:
        self._states.pop(split, None)
        self._steps_seen = 0

    def _evaluation_step(self, split: str, batch: Batch, metrics: MetricCollection) -> dict[str, Tensor]:
        batch, part = self._own_rows(batch)
        before = self._state(split, batch)
        _, outputs = self._shared_step(split, batch, metrics, part > 0)
        if not self.model.segments or self._steps_seen >= self.boundary_steps:
            return {"outputs": outputs}
        boundaries = self.model.boundaries(batch, before)
        rows, steps, layers = boundaries.shape
        self._steps_seen += steps
        valid = rows * steps if batch.lengths is None else int(batch.lengths.sum())
        found = (boundaries > 0.5).sum((0, 1)) / valid
        for k in range(layers):
            self._log_mean(split, f"boundary_rate_{k + 1}", found[k], valid if part > 0 else 0)
        return {"outputs": outputs, "boundaries": boundaries}

    @property
    def _processes(self) -> int:
        """That train together; without a trainer, this one."""
        return 1 if self._trainer is None else self._trainer.world_size

    def _own_rows(self, batch: Batch) -> tuple[Batch, float]:
        """This process's rows, and by what to multiply their loss, so that its mean over the processes is the whole batch's.

        A process for which no row is left takes the first one, which then counts nothing.
        """
        processes = self._processes
        if processes == 1:
            return batch, 1.0
        rank = self.trainer.global_rank
        if rank >= len(batch):
            return batch.rows(slice(1)), 0.0
        own = batch.rows(slice(rank, None, processes))
        return own, processes * self.task.weight(own) / self.task.weight(batch)

    def _shared_step(self, split: str, batch: Batch, metrics: MetricCollection, counts: bool) -> tuple[Tensor, Tensor]:
        if self.task.spec.contiguous:
            outputs = self._carried(split, batch)
            loss = self.task.loss(outputs, batch)
        else:
            outputs, loss = self.model.learn(batch, self.task)
        self._log_mean(split, "loss", loss, self.task.weight(batch) if counts else 0)
        if counts:
            self.task.update(metrics, outputs.detach(), batch)
        for name, metric in metrics.items():
            self.log(f"{split}/{name}", metric, on_step=False, on_epoch=True, prog_bar=split == "val")
        return loss, outputs

    def _log_mean(self, split: str, name: str, value: Tensor, weight: float) -> None:
        """Log a value's weighted mean over an epoch, and over the processes if there are several."""
        key = f"{split}_{name}"
        if key not in self.means:
            self.means[key] = WeightedMean().to(self.device)
        mean = self.means[key]
        assert isinstance(mean, WeightedMean)
        mean.update(value.detach(), weight)
        shown = split == "train" and name == "loss"
        self.log(f"{split}/{name}", mean, on_step=False, on_epoch=True, prog_bar=shown, metric_attribute=f"means.{key}")

    def within_epoch(self) -> dict[str, Any]:
        """What training has gathered since the epoch began, as tensors and plain values."""
        return {
            "state": _plain(self._states.get("train")),
            "metrics": {name: metric.metric_state for name, metric in self._gathering()},
        }

    def continue_epoch(self, found: dict[str, Any]) -> None:
        """Go on with what :meth:`within_epoch` gave."""
        found = apply_to_collection(found, Tensor, lambda value: value.to(self.device))
        if found["state"] is not None:
            self._states["train"] = found["state"]
        for name in found["metrics"]:
            if name.startswith("train_"):
                self.means[name] = WeightedMean().to(self.device)
        for name, metric in self._gathering():
            for part, value in found["metrics"][name].items():
                setattr(metric, part, value)

    def _gathering(self) -> Iterator[tuple[str, Metric]]:
        for name, metric in self.train_metrics.items(copy_state=False):
            assert isinstance(metric, Metric)
            yield name, metric
        for name, mean in self.means.items():
            if name.startswith("train_"):
                assert isinstance(mean, Metric)
                yield name, mean

    def _carried(self, split: str, batch: Batch) -> Tensor:
        outputs, state = self._carry(batch, self._state(split, batch))
        self._states[split] = apply_to_collection(state, Tensor, Tensor.detach)
        return outputs

    def _state(self, split: str, batch: Batch) -> Any:
        """Where the rows of a batch stopped before: the last batch of a split may have fewer of them."""
        return apply_to_collection(self._states.get(split), Tensor, lambda part: part[: len(batch)])


def _plain(state: Any) -> Any:
    """Tuples of any kind as tuples: a checkpoint holds no classes of our own."""
    return tuple(_plain(part) for part in state) if isinstance(state, tuple | list) else state
