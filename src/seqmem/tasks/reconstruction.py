"""A whole sequence that is to be given back, from what was kept of it."""

from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.regression import MeanSquaredError

from seqmem.data.batch import Batch
from seqmem.data.masks import valid_steps
from seqmem.data.spec import DataSpec
from seqmem.tasks.base import Task


class Reconstruction(Task):
    """Mean squared error of outputs and targets (B, T, D) over their valid steps.

    Args:
        spec: the data set's.
        scale: (D,) factor that takes each channel to the unit in which the metric is given; None for 1.
    """

    metric = "mse"
    best = "min"

    def __init__(self, spec: DataSpec, scale: Tensor | None = None):
        super().__init__(spec)
        self.scale = scale

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean squared error of a value."""
        left, right = valid_values(outputs, batch)
        return (left - right).square().mean()

    def weight(self, batch: Batch) -> int:
        """Valid steps of the targets."""
        lengths = batch.output_lengths
        return batch.targets.shape[0] * batch.targets.shape[1] if lengths is None else int(lengths.sum())

    def metrics(self) -> MetricCollection:
        """Mean squared error over all valid values of the split, of scaled channels."""
        return MetricCollection({"mse": MeanSquaredError()})

    def update(self, metrics: MetricCollection, outputs: Tensor, batch: Batch) -> None:
        """Add a batch to the metrics."""
        scale = 1 if self.scale is None else self.scale.to(outputs.device)
        metrics.update(*((values * scale).contiguous() for values in valid_values(outputs, batch)))


def valid_values(outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Outputs and targets at all valid steps: (n, D) each, or (B, T, D) if all are valid."""
    lengths = batch.output_lengths
    if lengths is None:
        return outputs, batch.targets
    valid = valid_steps(lengths, outputs.shape[1])
    return outputs[valid], batch.targets[valid]
