"""Future values of a series, with an error in units of the series itself."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.regression import MeanSquaredError

from seqmem.tasks.regression import Regression


class Forecasting(Regression):
    """Regression with a normalised error: 0 is perfect, 1 is the error of always predicting 0."""

    name = "forecasting"
    metric = "nrmse"
    metric_label = "normalised RMSE"
    predicts_following = True

    def metrics(self) -> MetricCollection:
        """Mean squared error, and its root over the targets' root mean square, both over the whole split."""
        return MetricCollection({"mse": MeanSquaredError(), "nrmse": NormalizedRootMeanSquare()}, compute_groups=False)


class NormalizedRootMeanSquare(Metric):
    """sqrt(sum of (output - target)^2 / sum of target^2).

    For targets of mean zero it is the error in standard deviations. The metric of torchmetrics divides by the standard
    deviation around the mean of the targets seen, or by their norm, which grows with their number.
    """

    higher_is_better = False
    full_state_update = False

    squared_errors: Tensor
    squared_targets: Tensor

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.add_state("squared_errors", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("squared_targets", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add outputs and targets of equal shape."""
        self.squared_errors += (outputs - targets).square().sum()
        self.squared_targets += targets.square().sum()

    def compute(self) -> Tensor:
        """Value over everything added so far."""
        return (self.squared_errors / self.squared_targets).sqrt()
