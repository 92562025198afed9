"""The next symbol of a text at every step, with its code length in bits."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import Metric, MetricCollection

from seqmem.data.batch import Batch
from seqmem.tasks.base import Task, target_probability


class LanguageModelling(Task):
    """Cross-entropy of logits (B, T, K) and targets (B, T); bits per character and perplexity."""

    name = "language_modelling"
    metric = "bpc"
    metric_label = "bits per character"
    best = "min"
    class_targets = True
    excerpt_kind = "text"
    predicts_following = True

    def criterion(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of a character in nats."""
        return cross_entropy(outputs, targets)

    def metrics(self) -> MetricCollection:
        """Bits per character and perplexity, both over all characters of the split."""
        return MetricCollection({"bpc": BitsPerCharacter(), "perplexity": Perplexity()}, compute_groups=[["bpc", "perplexity"]])

    def predictions(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Target, most likely symbol, and the probability of the target; NaN where the target is ignored."""
        probability = target_probability(outputs, batch.targets)
        return {"target": batch.targets, "prediction": outputs.argmax(-1), "probability": probability}


class BitsPerCharacter(Metric):
    """Mean of -log2 p over characters, where p is the softmax probability of the target.

    The sum is kept in float64: millions of terms are added in portions that depend on how the text was cut. The perplexity of
    torchmetrics adds them in float32, and takes the logarithm of probabilities that underflow.
    """

    higher_is_better = False
    full_state_update = False

    nats: Tensor
    characters: Tensor

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.add_state("nats", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("characters", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Add logits (n, K) and targets (n,)."""
        self.nats += cross_entropy(logits, targets, reduction="none").sum(dtype=torch.float64)
        self.characters += len(targets)

    def compute(self) -> Tensor:
        """Value over everything added so far."""
        return self.nats / self.characters / math.log(2)


class Perplexity(BitsPerCharacter):
    """2 to the power of bits per character: the number of equally likely symbols with the same code length."""

    def compute(self) -> Tensor:
        """Value over everything added so far."""
        return super().compute().exp2()
