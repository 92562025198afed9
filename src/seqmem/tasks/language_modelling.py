"""The next symbol of a text at every step, scored by how many bits its coding would take."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import Metric, MetricCollection

from seqmem.data.batch import Batch
from seqmem.data.masks import valid_steps
from seqmem.tasks.base import Task


class LanguageModelling(Task):
    """Cross-entropy of logits (B, T, K) with targets (B, T) at the valid steps of each row; bits per character, perplexity."""

    metric = "bpc"
    best = "min"

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean cross-entropy of a character in nats."""
        return cross_entropy(*_valid(outputs, batch))

    def weight(self, batch: Batch) -> int:
        """Characters to predict."""
        return batch.targets.numel() if batch.lengths is None else int(batch.lengths.sum())

    def metrics(self) -> MetricCollection:
        """Bits per character and perplexity, both over all characters of the split."""
        return MetricCollection({"bpc": BitsPerCharacter(), "perplexity": Perplexity()})

    def update(self, metrics: MetricCollection, outputs: Tensor, batch: Batch) -> None:
        """Add a batch to the metrics."""
        metrics.update(*_valid(outputs, batch))


class BitsPerCharacter(Metric):
    """Mean of -log2 p over characters, p being what softmax gives the right one.

    The sum is kept in float64: millions of terms are added in portions that depend on how the text was cut. (The perplexity of
    torchmetrics adds them in single precision, and takes the logarithm of probabilities that underflow.)
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
        """The value over everything added so far."""
        return self.nats / self.characters / math.log(2)


class Perplexity(BitsPerCharacter):
    """2 to the power of bits per character: among how many equally likely symbols the choice would be as hard."""

    def compute(self) -> Tensor:
        """The value over everything added so far."""
        return super().compute().exp2()


def _valid(outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits (n, K) and targets (n,) at all valid steps."""
    if batch.lengths is None:
        return outputs.flatten(0, 1), batch.targets.flatten()
    valid = valid_steps(batch.lengths, outputs.shape[1])
    return outputs[valid], batch.targets[valid]
