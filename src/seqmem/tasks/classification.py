"""Classes, one for a sequence or one for each of its last steps."""

from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from seqmem.data.batch import Batch
from seqmem.tasks.base import Task


class Classification(Task):
    """Cross-entropy of logits (B, K) with targets (B,), or of logits (B, k, K) with targets (B, k); accuracy in [0, 1]."""

    metric = "accuracy"
    best = "max"

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean cross-entropy in nats."""
        return cross_entropy(outputs.flatten(0, -2), batch.targets.flatten())

    def metrics(self) -> MetricCollection:
        """Accuracy: the fraction of targets whose class has the largest logit."""
        return MetricCollection({"accuracy": MulticlassAccuracy(self.spec.output_size, average="micro")})

    def update(self, metrics: MetricCollection, outputs: Tensor, batch: Batch) -> None:
        """Add a batch to the metrics."""
        metrics.update(outputs.flatten(0, -2), batch.targets.flatten())
