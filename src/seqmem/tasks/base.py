"""The contract of every task, and the registry of tasks."""

from math import nan, prod
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from seqmem import plugins
from seqmem.data.batch import IGNORE_INDEX, Batch
from seqmem.data.masks import counted_index, counted_targets
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError, suggestion

_registry: dict[str, type["Task"]] = {}


class Task:
    """Loss, metrics and predictions of one kind of task.

    A subclass with a class attribute ``name`` is registered. It implements :meth:`criterion` and :meth:`metrics`. Both get only
    the targets that count, see :meth:`counted`; of batches with missing targets, these are single values (n,).

    Attributes:
        name: name in a data set's spec.
        metric: the metric that chooses checkpoints and that tables show; one of :meth:`metrics`' names.
        metric_label: the metric's name on the axis of a plot.
        best: whether a larger ("max") or a smaller ("min") value of the metric is better.
        class_targets: targets are class indices, (B,) or (B, T); otherwise they are values, (B, D) or (B, T, D).
        tabulates_classes: an evaluation counts targets and predictions by class.
        reconstructs: outputs are a whole sequence, computed from an encoding of it.
        predicts_following: targets are later inputs, so that a model must not use the inputs after an output's step.
        excerpt_kind: kind of excerpt ("text" or "series") of a sequence with an output at every step; None for none.

    Args:
        spec: of the data set.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    metric_label: ClassVar[str]
    best: ClassVar[Literal["max", "min"]]
    class_targets: ClassVar[bool] = False
    tabulates_classes: ClassVar[bool] = False
    reconstructs: ClassVar[bool] = False
    predicts_following: ClassVar[bool] = False
    excerpt_kind: ClassVar[Literal["text", "series"] | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            plugins.register(_registry, cls)

    def __init__(self, spec: DataSpec):
        self.spec = spec

    @property
    def irreducible_error(self) -> float | None:
        """The best expected value of the metric; None if it is not known."""
        return self.spec.irreducible_error

    @property
    def excerpt(self) -> Literal["text", "series"] | None:
        """Kind of excerpt ("text" or "series"); None for none."""
        return self.excerpt_kind if self.spec.output_steps is None else None

    def criterion(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss, a scalar, over counted targets.

        Args:
            outputs: (n, K) logits, or values of the targets' shape.
            targets: (n,) class indices, or values (..., D).
        """
        raise NotImplementedError

    def metrics(self) -> MetricCollection:
        """Create metrics, by name; they are updated with what :meth:`criterion` gets."""
        raise NotImplementedError

    def predictions(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Targets and predictions of a batch, by name, as they are written to a file: with padding, NaN for a missing one."""
        return {"target": batch.targets_or_nan, "prediction": outputs}

    def counted(self, batch: Batch) -> Tensor | None:
        """Return a mask, (B,) or (B, T) bool, of the targets that count, or one of values if some are missing; None if all do.

        See :func:`seqmem.data.masks.counted_targets`.
        """
        return counted_targets(batch, self.positions(batch), self.spec.output_steps, self.class_targets)

    def selected(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the outputs and targets that count.

        They are (n, ...) each, or values as they are if all count, or single values (n,) if some are missing.
        """
        positions = self.positions(batch)
        if batch.host is None:
            counted = self.counted(batch)
            if counted is not None:
                return outputs[counted], batch.targets[counted]
        else:
            index = counted_index(batch, positions, self.spec.output_steps, self.class_targets)
            if index is not None:
                last = (len(positions) if batch.known is None else batch.known.dim()) - 1
                return outputs.flatten(0, last).index_select(0, index), batch.targets.flatten(0, last).index_select(0, index)
        if self.class_targets:
            return outputs.flatten(0, -2), batch.targets.flatten()
        return outputs, batch.targets

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Training loss, a scalar: the mean over all targets that count, 0 if none does."""
        outputs, targets = self.selected(outputs, batch)
        return self.criterion(outputs, targets) if targets.numel() else outputs.sum()

    def weight(self, batch: Batch) -> float:
        """Number of targets that count: the weight of a batch's loss in the mean over a split.

        A target of D values of which some are missing counts by the fraction that is known.
        """
        counted = self.counted(batch.on_host)
        if counted is None:
            return prod(self.positions(batch))
        return int(counted.sum()) if batch.known is None else int(counted.sum()) / batch.known.shape[-1]

    def update(self, metrics: MetricCollection, outputs: Tensor, batch: Batch) -> None:
        """Add the targets that count to the metrics."""
        outputs, targets = self.selected(outputs, batch)
        if targets.numel():
            metrics.update(outputs.contiguous(), targets.contiguous())

    def positions(self, batch: Batch) -> torch.Size:
        """Shape of the targets without the channels of a value: (B,) or (B, T)."""
        return batch.targets.shape if self.class_targets else batch.targets.shape[:-1]


def target_probability(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the softmax probability of each target, NaN where it is ignored.

    Args:
        outputs: (..., K) logits.
        targets: (...) class indices.
    """
    ignored = targets == IGNORE_INDEX
    probability = outputs.log_softmax(-1).gather(-1, targets.where(~ignored, 0)[..., None])[..., 0].exp()
    return probability.where(~ignored, nan)


def get(name: str) -> type[Task]:
    """Return the task class of a name.

    Raises:
        UserError: no task has this name.
    """
    if name not in _registry:
        raise UserError(f"task: got '{name}', expected the name of a task{suggestion(name, names())}")
    return _registry[name]


def names() -> list[str]:
    """Return the names of all tasks, sorted."""
    return sorted(_registry)


def task_for(spec: DataSpec) -> Task:
    """Create the task of a data set.

    Raises:
        UserError: the spec names an unknown task.
    """
    if spec.task not in _registry:
        raise UserError(f"task of {spec.name}: got '{spec.task}', expected the name of a task{suggestion(spec.task, names())}")
    return _registry[spec.task](spec)
