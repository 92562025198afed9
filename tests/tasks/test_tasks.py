"""Losses and metrics by hand."""

import pytest
import torch

from seqmem.batch import Batch
from seqmem.spec import DataSpec
from seqmem.tasks import task_for


def task(kind, output_size):
    return task_for(DataSpec("made up", 1, output_size, kind, 0, 5))


@pytest.mark.parametrize(("steps", "alphabet"), [(12, 10), (10, 10), (3, 7)])
def test_perfect_logits_of_several_steps_have_no_loss(steps, alphabet):
    targets = torch.randint(0, alphabet, (6, steps))
    logits = 1e4 * torch.nn.functional.one_hot(targets, alphabet).float()
    assert task("classification", alphabet).loss(logits, Batch(logits, targets)).item() == 0
    wrong = logits.roll(1, -1)
    assert task("classification", alphabet).loss(wrong, Batch(wrong, targets)).item() == pytest.approx(1e4)


def test_accuracy_counts_targets_over_all_batches():
    kind = task("classification", 3)
    metrics = kind.metrics()
    kind.update(metrics, torch.eye(3), Batch(None, torch.tensor([0, 1, 2])))
    kind.update(metrics, torch.eye(3)[:1], Batch(None, torch.tensor([2])))
    assert metrics.compute()["accuracy"].item() == 0.75


def test_mean_squared_error():
    kind = task("regression", 1)
    outputs, targets = torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [1.0]])
    assert kind.loss(outputs, Batch(None, targets)).item() == 2
    metrics = kind.metrics()
    kind.update(metrics, outputs, Batch(None, targets))
    assert metrics.compute()["mse"].item() == 2
