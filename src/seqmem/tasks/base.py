"""The contract of every task."""

from typing import ClassVar, Literal

from torch import Tensor
from torchmetrics import MetricCollection

from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec


class Task:
    """Loss, metrics, and which metric says that one model is better than another.

    Attributes:
        metric: the metric that checkpoints are chosen by and tables show; one of :meth:`metrics`' names.
        best: whether a larger ("max") or a smaller ("min") value of it is better.
    """

    metric: ClassVar[str]
    best: ClassVar[Literal["max", "min"]]

    def __init__(self, spec: DataSpec):
        self.spec = spec

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The training loss, a scalar: the mean over all wanted outputs of a batch."""
        raise NotImplementedError

    def weight(self, batch: Batch) -> int:
        """How much a batch's loss counts in the mean over a split: the number of outputs that it is the mean of."""
        return len(batch)

    def metrics(self) -> MetricCollection:
        """Fresh metrics, by name."""
        raise NotImplementedError

    def update(self, metrics: MetricCollection, outputs: Tensor, batch: Batch) -> None:
        """Add a batch to the metrics."""
        raise NotImplementedError
