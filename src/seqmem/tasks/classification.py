"""Class labels: one for each sequence, for each of its last steps, or for every step."""

from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from seqmem.data.batch import Batch
from seqmem.tasks.base import Task


class Classification(Task):
    """Cross-entropy of logits (B, K) and targets (B,), or of (B, T, K) and (B, T); accuracy in [0, 1]."""

    name = "classification"
    metric = "accuracy"
    metric_label = "accuracy"
    best = "max"
    class_targets = True
    tabulates_classes = True

    def criterion(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats."""
        return cross_entropy(outputs, targets)

    def metrics(self) -> MetricCollection:
        """Accuracy: the fraction of targets whose class has the largest logit."""
        return MetricCollection({"accuracy": MulticlassAccuracy(self.spec.output_size, average="micro", validate_args=False)})

    def predictions(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Target, class of the largest logit, and the probability of each class."""
        return {"target": batch.targets, "prediction": outputs.argmax(-1), "probability": outputs.softmax(-1)}
