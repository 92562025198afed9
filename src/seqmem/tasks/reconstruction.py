"""A whole sequence, reconstructed from an encoding of it."""

from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.regression import MeanSquaredError

from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.tasks.base import Task


class Reconstruction(Task):
    """Mean squared error of outputs and targets (B, T, D) over their valid steps.

    Args:
        spec: of the data set.
        scale: (D,) factor that converts each channel to the metric's unit; None for 1.
    """

    name = "reconstruction"
    metric = "mse"
    metric_label = "mean squared error"
    best = "min"
    reconstructs = True

    def __init__(self, spec: DataSpec, scale: Tensor | None = None):
        super().__init__(spec)
        self.scale = scale

    def criterion(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error of a value."""
        return (outputs - targets).square().mean()

    def metrics(self) -> MetricCollection:
        """Mean squared error over all valid values of the split, of scaled channels."""
        return MetricCollection({"mse": MeanSquaredError()})

    def update(self, metrics: MetricCollection, outputs: Tensor, batch: Batch) -> None:
        """Add the valid values, scaled, to the metrics."""
        if self.scale is not None and self.scale.device != outputs.device:
            self.scale = self.scale.to(outputs.device)  # once
        scale = 1 if self.scale is None else self.scale
        if self.scale is not None and batch.known is not None:
            scale, _ = self.selected(self.scale.expand_as(outputs), batch)
        outputs, targets = self.selected(outputs, batch)
        if targets.numel():
            metrics.update((outputs * scale).contiguous(), (targets * scale).contiguous())
