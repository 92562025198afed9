"""Real values: for each sequence, for each of its last steps, or for every step."""

import torch
from torch import Tensor
from torch.nn.functional import mse_loss
from torchmetrics import MetricCollection
from torchmetrics.regression import MeanSquaredError

from seqmem.tasks.base import Task


class Regression(Task):
    """Mean squared error of outputs and targets of equal shape, (B, D) or (B, T, D)."""

    name = "regression"
    metric = "mse"
    metric_label = "mean squared error"
    best = "min"
    excerpt_kind = "series"

    def criterion(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error of a value."""
        dtype = torch.promote_types(outputs.dtype, targets.dtype)  # torch 2.11 has no gradient for two types
        return mse_loss(outputs.to(dtype), targets.to(dtype))

    def metrics(self) -> MetricCollection:
        """Mean squared error over the whole split."""
        return MetricCollection({"mse": MeanSquaredError()})
