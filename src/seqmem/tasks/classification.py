"""Class labels: one for each sequence, for each of its last steps, or for every step."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from seqmem.data.batch import Batch
from seqmem.data.masks import counted_index
from seqmem.tasks.base import Task, target_probability

MANY_CLASSES = 1000
"""With more classes than this, their probabilities are not written, and they are not tabulated."""


class Classification(Task):
    """Cross-entropy of logits (B, K) and targets (B,), or of (B, T, K) and (B, T); accuracy in [0, 1].

    Where a sequence has several targets, ``sequence_accuracy`` is the fraction of sequences whose targets are all predicted.
    """

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
        """Accuracy: the fraction of targets whose class has the largest logit; of several targets also that of sequences."""
        accuracy = MulticlassAccuracy(self.spec.output_size, average="micro", validate_args=False)
        whole = {"sequence_accuracy": SequenceAccuracy()} if self._several else {}
        return MetricCollection({"accuracy": accuracy, **whole}, compute_groups=False)

    def update(self, metrics: MetricCollection, outputs: Tensor, batch: Batch) -> None:
        """Add the targets that count to the metrics."""
        logits, targets = self.selected(outputs, batch)
        if not targets.numel():
            return
        whole: dict[str, Any] = {}
        if self._several:
            positions = self.positions(batch)
            places = counted_index(batch, positions, self.spec.output_steps, classes=True)
            if places is None:
                places = torch.arange(targets.numel(), device=targets.device)
            whole = {"sequence": places // positions[1], "count": positions[0]}
        metrics.update(logits.contiguous(), targets.contiguous(), **whole)

    def predictions(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Target, class of the largest logit, and the probability of each class, or of the target alone if there are many."""
        many = self.spec.output_size > MANY_CLASSES
        probability = target_probability(outputs, batch.targets) if many else outputs.softmax(-1)
        return {"target": batch.targets, "prediction": outputs.argmax(-1), "probability": probability}

    @property
    def _several(self) -> bool:
        """Whether the rows of a batch are sequences of several targets, and not parts of sequences."""
        return self.spec.output_steps != 0 and not self.spec.contiguous


class SequenceAccuracy(Metric):
    """Fraction of sequences whose targets are all predicted; a sequence without a target that counts is left out."""

    higher_is_better = True
    full_state_update = False

    correct: Tensor
    sequences: Tensor

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.add_state("correct", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("sequences", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, targets: Tensor, sequence: Tensor, count: int) -> None:
        """Add logits (n, K), targets (n,), and the number (n,) of each one's sequence among ``count``."""
        wrong, asked = (torch.zeros(count, dtype=torch.int64, device=targets.device) for _ in range(2))
        wrong.index_add_(0, sequence, (logits.argmax(-1) != targets).long())
        asked.index_add_(0, sequence, torch.ones_like(sequence))
        self.correct += ((asked > 0) & (wrong == 0)).sum()
        self.sequences += (asked > 0).sum()

    def compute(self) -> Tensor:
        """Value over everything added so far; 0 if nothing was."""
        return self.correct / self.sequences.clamp(min=1)
