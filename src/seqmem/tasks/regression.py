"""Real values, at the end of a sequence, at its last steps or at every step."""

from torch import Tensor
from torch.nn.functional import mse_loss
from torchmetrics import MetricCollection
from torchmetrics.regression import MeanSquaredError

from seqmem.data.batch import Batch
from seqmem.tasks.base import Task


class Regression(Task):
    """Mean squared error of outputs and targets of equal shape, (B, D), (B, k, D) or (B, T, D)."""

    metric = "mse"
    best = "min"

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean squared error."""
        return mse_loss(outputs, batch.targets)

    def metrics(self) -> MetricCollection:
        """Mean squared error over the whole split."""
        return MetricCollection({"mse": MeanSquaredError()})

    def update(self, metrics: MetricCollection, outputs: Tensor, batch: Batch) -> None:
        """Add a batch to the metrics."""
        metrics.update(outputs.contiguous(), batch.targets.contiguous())
