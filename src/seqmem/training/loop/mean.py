"""The mean of a logged value over an epoch."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class WeightedMean(Metric):
    """sum(w v) / sum(w) over all updates, and over the processes if there are several.

    NaN counts. torchmetrics' MeanMetric can let NaN through, too, but then it drops the weights.
    """

    full_state_update = False

    def __init__(self, **keywords: Any):
        super().__init__(**keywords)
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("weight", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.total: Tensor
        self.weight: Tensor

    def update(self, value: Tensor, weight: float) -> None:
        """Add a value, a scalar."""
        self.total += value.to(self.total.dtype) * weight
        self.weight += weight

    def compute(self) -> Tensor:
        """The mean so far."""
        return self.total / self.weight
