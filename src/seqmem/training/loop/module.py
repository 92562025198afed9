"""The LightningModule: a model and a task, trained with one optimiser."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_utilities import apply_to_collection
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric, MetricCollection

from seqmem.data.batch import Batch
from seqmem.data.places import at_counted_steps
from seqmem.models import SequenceModel
from seqmem.tasks import Task
from seqmem.training.checkpoints.seeds import StepSeeds
from seqmem.training.config import TrainConfig
from seqmem.training.loop.accumulation import window_for
from seqmem.training.loop.carried_states import CarriedStates
from seqmem.training.loop.clipping import clip_gradients
from seqmem.training.loop.loss_check import LossCheck, Position
from seqmem.training.loop.mean import WeightedMean
from seqmem.training.loop.not_finite import Finding, first_not_finite, numbered
from seqmem.training.loop.rows import own_rows
from seqmem.training.optimisation.build import optimizer_for, schedule_for


class SequenceModule(pl.LightningModule):
    """Trains ``model`` on ``task``; logs ``SPLIT/loss`` and ``SPLIT/METRIC`` once an epoch for train, val and test.

    Where the data set's batches are contiguous, the model's state is carried from batch to batch of a split. The gradient stops
    between them (truncated backpropagation through time). Each pass over a split begins without a state, and so does each row
    that ``Batch.restarts`` marks. A checkpoint within an epoch holds the state, one between epochs does not.

    With several processes (Lightning's DDP), each gets whole batches and takes its own rows, see :func:`own_rows`.

    A model that finds boundaries also logs ``SPLIT/boundary_rate_K`` for val and test, for each layer K from 1, the lowest. It
    is the fraction of valid steps at which the layer's indicator is above a half.

    Args:
        model: the network; it is compiled where ``train`` says so.
        task: what is learned.
        train: how it is trained.
        steps_per_epoch: optimiser steps of an epoch, for schedules by steps; None asks the trainer.

    Attributes:
        boundary_steps: boundaries are computed in the first batches of a split that have this number of steps together; they
            take a second pass.
        keeps_step: keep what is needed to compute the latest training step again, in ``find``.
        find: computes that step again, and returns what is first not finite in it.
    """

    boundary_steps: float = 1000
    keeps_step: bool = False
    find: Callable[[], Finding | None]

    def __init__(self, model: SequenceModel, task: Task, train: TrainConfig, steps_per_epoch: int | None = None):
        super().__init__()
        if train.compile:
            model.compile()
        self.model = model
        self.task = task
        self.train_config = train
        self._given_steps_per_epoch = steps_per_epoch
        self.train_metrics, self.val_metrics, self.test_metrics = task.metrics(), task.metrics(), task.metrics()
        # Metrics, not Lightning's own means: a checkpoint within an epoch holds their sums.
        self.means = nn.ModuleDict()
        self.states = CarriedStates()
        self.losses = LossCheck(train.advice)
        self.window = window_for(train)
        self._carry = torch.compile(model.carry) if train.compile else model.carry
        self._boundary_steps_seen = 0
        self._logged: set[str] = set()  # in this pass over a split; once is enough for a Metric, and takes 1 ms

    def forward(self, batch: Batch) -> Tensor:
        """Return the model's outputs."""
        return self.model(batch)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Leave out the targets that do not count, where most do not; callbacks get this batch."""
        return at_counted_steps(batch) if self.task.spec.sparse_targets else batch

    def on_train_start(self) -> None:
        """Count the weights that other processes got at their start as no update."""
        for part in self.model.modules():
            if forget := getattr(part, "forget_changes", None):
                forget()

    def on_train_epoch_start(self) -> None:
        """Begin without a state; the model's own schedules follow the epoch."""
        self._logged.clear()
        self.states.reset("train")
        self.model.on_epoch(self.current_epoch)

    def on_train_epoch_end(self) -> None:
        """Check the losses of the epoch, where that was deferred."""
        self.losses.wait()

    def on_validation_epoch_start(self) -> None:
        """Begin without a state, after training losses that are all finite."""
        self.losses.wait()
        self._begin_evaluation("val")

    def on_test_epoch_start(self) -> None:
        """Begin without a state."""
        self._begin_evaluation("test")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Set the model's own schedules to the checkpoint's epoch."""
        self.model.on_epoch(checkpoint["epoch"])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch plus the model's penalty, which train/loss leaves out.

        Where several batches make one optimiser step, it is this batch's part of their loss.
        """
        find = partial(self._first_not_finite, batch, batch_idx, self.states.plain("train"))
        own, factor = self._own_rows(batch)
        own = self.model.augment(own)
        loss, _ = self._loss_and_outputs("train", own, self.train_metrics, factor > 0)
        if factor != 1:
            loss = loss * factor
        penalty = self.model.penalty()
        if penalty is not None:
            self._log_mean("train", "penalty", penalty, len(batch))
        whole = loss if penalty is None else loss + penalty
        self.losses.add(whole, partial(self._step, batch_idx), find)
        if self.keeps_step:
            self.find = find
        if self.window.batches == 1:
            return whole
        # All processes count the whole batch, whose augmented rows only a single process has.
        weight = self._loss_weight(own) if self._processes == 1 else self._augmented_weight(batch)
        return self._part_of_step(loss, penalty, weight, batch_idx)

    def _step(self, batch_idx: int) -> tuple[Position, Optimizer]:
        """Return the position of a training batch, and the optimiser."""
        return Position(self.current_epoch, batch_idx, self.global_step), self.trainer.optimizers[0]

    def _first_not_finite(self, batch: Batch, batch_idx: int, carried: Any) -> Finding | None:
        """Compute a training step again, and return what is first not finite in it.

        Args:
            batch: of the step.
            batch_idx: its number in the epoch.
            carried: the state before it, as :meth:`CarriedStates.plain` returns it.
        """
        own, _ = self._own_rows(batch)
        states = CarriedStates()
        states.restore("train", carried, self.device)

        def loss() -> Tensor:
            for callback in getattr(self.trainer, "callbacks", ()):
                if isinstance(callback, StepSeeds):
                    callback.on_train_batch_start(self.trainer, self, batch, batch_idx)
            augmented = self.model.augment(own)
            if self.task.spec.contiguous:
                outputs, _ = self.model.carry(augmented, states.before("train", augmented, self.model))
                value = self.task.loss(outputs, augmented)
            else:
                _, value = self.model.learn(augmented, self.task)
            penalty = self.model.penalty()
            return value if penalty is None else value + penalty

        with self.trainer.precision_plugin.train_step_context():
            found = first_not_finite(self.model, self.task, own, loss)
        return found and numbered(found, self.trainer, batch_idx)

    def _part_of_step(self, loss: Tensor, penalty: Tensor | None, weight: float, batch_idx: int) -> Tensor:
        """Return the part of an optimiser step's loss that a batch adds; the last one adds the penalty."""
        factor = self.window.add(weight)
        part = loss if factor == 1 else loss * factor
        if penalty is None or not self.window.is_last(batch_idx, int(self.trainer.num_training_batches)):
            return part
        return part + penalty * (self.window.total or 1.0)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Log a batch; return its ``outputs`` and, if they were computed, its ``boundaries`` (B, T, L)."""
        return self._evaluation_step("val", batch, self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Log a batch; return its ``outputs`` and, if they were computed, its ``boundaries`` (B, T, L)."""
        return self._evaluation_step("test", batch, self.test_metrics)

    def configure_optimizers(self) -> Any:
        """Create the config's optimiser and schedule."""
        optimizer = optimizer_for(self.model, self.train_config)
        schedule = schedule_for(optimizer, self.train_config, self._steps_per_epoch)
        if schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule[0], "interval": schedule[1]}}

    def configure_gradient_clipping(self, optimizer: Optimizer, *_: Any, **__: Any) -> None:
        """Clip as the config says, once an optimiser step, as the lean loop does; the trainer has no clipping of its own."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if self.window.batches > 1:
            self.window.rescale(parameters)
        clip_gradients(parameters, self.train_config.gradient_clip_val, self.train_config.gradient_clip_algorithm)

    def within_epoch(self) -> dict[str, Any]:
        """Return what training has gathered since the epoch began, as tensors and plain values."""
        return {
            "state": self.states.plain("train"),
            "metrics": {name: metric.metric_state for name, metric in self._train_metrics()},
            "window": self.window.state(),
            "gradients": self._gradients() if self.window.is_open else {},
        }

    def continue_epoch(self, gathered: dict[str, Any], validates: bool = False) -> None:
        """Restore what :meth:`within_epoch` returned; call it in ``on_train_start``.

        Args:
            gathered: what it returned.
            validates: no batch of the epoch is left, so the metrics are logged here and not by a training step.
        """
        self.states.restore("train", gathered["state"], self.device)
        self.window.restore(gathered.get("window", []))
        for name, gradient in gathered.get("gradients", {}).items():
            self.get_parameter(name).grad = gradient.to(self.device)
        for name in gathered["metrics"]:
            if name.startswith("train_"):
                self.means[name] = WeightedMean().to(self.device)
        for name, metric in self._train_metrics():
            for part, value in gathered["metrics"][name].items():
                setattr(metric, part, apply_to_collection(value, Tensor, lambda tensor: tensor.to(self.device)))
            metric._update_count = 1  # torchmetrics would warn that nothing has been added
        if validates:
            self._log_train_metrics()

    def _gradients(self) -> dict[str, Tensor]:
        """Return the gradients so far by the parameters' names."""
        return {name: weight.grad for name, weight in self.named_parameters() if weight.grad is not None}

    def _begin_evaluation(self, split: str) -> None:
        self._logged = {name for name in self._logged if not name.startswith(f"{split}/")}
        self.states.reset(split)
        self._boundary_steps_seen = 0

    def _evaluation_step(self, split: str, batch: Batch, metrics: MetricCollection) -> dict[str, Tensor]:
        batch, factor = self._own_rows(batch)
        before = self.states.before(split, batch, self.model)
        _, outputs = self._loss_and_outputs(split, batch, metrics, factor > 0)
        if not self.model.segments or self._boundary_steps_seen >= self.boundary_steps:
            return {"outputs": outputs}
        boundaries = self.model.boundaries(batch, before)
        self._boundary_steps_seen += boundaries.shape[1]
        valid = int(batch.on_host.row_lengths.sum())
        rates = (boundaries > 0.5).sum((0, 1)) / valid
        for k, rate in enumerate(rates):
            self._log_mean(split, f"boundary_rate_{k + 1}", rate, valid if factor > 0 else 0)
        return {"outputs": outputs, "boundaries": boundaries}

    def _loss_and_outputs(self, split: str, batch: Batch, metrics: MetricCollection, counts: bool) -> tuple[Tensor, Tensor]:
        """Compute and log a batch's loss and metrics, with no weight unless it ``counts``."""
        if self.task.spec.contiguous:
            outputs, state = self._carry(batch, self.states.before(split, batch, self.model))
            self.states.after(split, state)
            loss = self.task.loss(outputs, batch)
        else:
            outputs, loss = self.model.learn(batch, self.task)
        self._log_mean(split, "loss", loss, self._loss_weight(batch) if counts else 0)
        if counts:
            self.task.update(metrics, outputs.detach(), batch)
        for name, metric in metrics.items():
            self._log_once(f"{split}/{name}", metric, prog_bar=split == "val")
        return loss, outputs

    def _log_once(self, name: str, metric: Metric, **options: Any) -> None:
        """Log a metric, whose value is computed at the end of the epoch."""
        if name not in self._logged:
            self._logged.add(name)
            self.log(name, metric, on_step=False, on_epoch=True, **options)

    def _log_mean(self, split: str, name: str, value: Tensor, weight: float) -> None:
        """Log a value's weighted mean over an epoch, and over the processes if there are several."""
        key = f"{split}_{name}"
        if key not in self.means:
            self.means[key] = WeightedMean().to(self.device)
        mean = self.means[key]
        assert isinstance(mean, WeightedMean)
        mean.update(value.detach(), weight)
        shown = split == "train" and name == "loss"
        self._log_once(f"{split}/{name}", mean, prog_bar=shown, metric_attribute=f"means.{key}")

    def _log_train_metrics(self) -> None:
        """Log the loss, the metrics and the other means in the order of a training step."""
        metrics = dict(self._train_metrics())
        means = [name for name in metrics if name.startswith("train_")]
        for name in sorted(metrics, key=lambda name: (name != "train_loss", name in means)):
            attribute = f"means.{name}" if name in means else None
            self.log(
                f"train/{name.removeprefix('train_')}", metrics[name], on_step=False, on_epoch=True, metric_attribute=attribute
            )

    def _train_metrics(self) -> Iterator[tuple[str, Metric]]:
        """Yield each metric and mean of the training split by name."""
        for name, metric in self.train_metrics.items(copy_state=False):
            assert isinstance(metric, Metric)
            yield name, metric
        for name, mean in self.means.items():
            if name.startswith("train_"):
                assert isinstance(mean, Metric)
                yield name, mean

    @property
    def _processes(self) -> int:
        """Number of processes that train together."""
        return 1 if self._trainer is None else self._trainer.world_size

    def _loss_weight(self, batch: Batch) -> float:
        """Return the weight of a batch's loss in a mean over batches."""
        return self.model.loss_weight(batch, self.task)

    def _augmented_weight(self, batch: Batch) -> float:
        """Return the weight of a batch's loss in a mean over batches after augmentation."""
        return self.model.augmented_weight(batch, self.task)

    def _own_rows(self, batch: Batch) -> tuple[Batch, float]:
        """Return this process's rows and the factor of their loss."""
        rank = 0 if self._trainer is None else self._trainer.global_rank
        return own_rows(batch, self._augmented_weight, rank, self._processes)

    def _steps_per_epoch(self) -> int:
        # The trainer's estimate sets up the data too early for a resume within an epoch.
        if self._given_steps_per_epoch is not None:
            return self._given_steps_per_epoch
        return int(self.trainer.estimated_stepping_batches) // max(self.trainer.max_epochs or 1, 1)
