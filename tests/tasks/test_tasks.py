"""Losses and metrics by hand."""

import math

import pytest
import torch

from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem import tasks
from seqmem.tasks import Reconstruction, task_for


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
    kind.update(metrics, torch.eye(3), Batch(torch.zeros(1, 1, 1), torch.tensor([0, 1, 2])))
    kind.update(metrics, torch.eye(3)[:1], Batch(torch.zeros(1, 1, 1), torch.tensor([2])))
    assert metrics.compute()["accuracy"].item() == 0.75


def test_mean_squared_error():
    kind = task("regression", 1)
    outputs, targets = torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [1.0]])
    assert kind.loss(outputs, Batch(torch.zeros(1, 1, 1), targets)).item() == 2
    metrics = kind.metrics()
    kind.update(metrics, outputs, Batch(torch.zeros(1, 1, 1), targets))
    assert metrics.compute()["mse"].item() == 2


def test_normalised_error_is_the_error_in_units_of_the_targets():
    torch.manual_seed(0)
    kind = task("forecasting", 1)
    assert (kind.metric, kind.best) == ("nrmse", "min")
    outputs, targets = torch.randn(2, 11, 7, 1, dtype=torch.float64).unbind()
    targets += 3
    metrics = kind.metrics()
    for rows in (slice(0, 4), slice(4, 11)):
        kind.update(metrics, outputs[rows], Batch(torch.zeros(1, 1, 1), targets[rows]))
    squared = (outputs - targets).square().mean()
    assert kind.loss(outputs, Batch(torch.zeros(1, 1, 1), targets)).item() == pytest.approx(squared.item())
    found = metrics.compute()
    assert set(found) == {"mse", "nrmse"}
    assert found["mse"].item() == pytest.approx(squared.item(), rel=1e-5)
    assert found["nrmse"].item() == pytest.approx((squared / targets.square().mean()).sqrt().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("outputs", "error"), [(lambda targets: targets, 0), (torch.zeros_like, 1), (lambda targets: -targets, 2)]
)
def test_normalised_error_of_simple_forecasts(outputs, error):
    targets = torch.randn(5, 13, 1)
    metrics = task("forecasting", 1).metrics()
    metrics.update(outputs(targets), targets)
    assert metrics.compute()["nrmse"].item() == pytest.approx(error, abs=1e-6)


def test_bits_and_perplexity_by_hand():
    """Probabilities 1/2, 1/4, 1/8 and 1 of the right symbols: 1 + 2 + 3 + 0 bits of 4 characters; a padded step has no say."""
    kind = task("language_modelling", 3)
    assert (kind.metric, kind.best) == ("bpc", "min")
    probabilities = torch.tensor([[[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]], [[0.5, 0.375, 0.125], [0.0, 0.0, 1.0]]])
    logits, targets = probabilities.log().clamp(min=-1e4), torch.tensor([[0, 2], [2, 2]])
    batch = Batch(torch.zeros(1, 1, 1), targets)
    assert kind.loss(logits, batch).item() == pytest.approx(6 * math.log(2) / 4)
    assert kind.weight(batch) == 4
    padded = Batch(torch.zeros(1, 1, 1), targets, torch.tensor([1, 2]))
    assert kind.loss(logits, padded).item() == pytest.approx(4 * math.log(2) / 3)
    assert kind.weight(padded) == 3
    metrics = kind.metrics()
    kind.update(metrics, logits, padded)
    kind.update(metrics, logits[:1, 1:], Batch(torch.zeros(1, 1, 1), targets[:1, 1:]))
    found = metrics.compute()
    assert found["bpc"].item() == pytest.approx(6 / 4)
    assert found["perplexity"].item() == pytest.approx(2**1.5)


def test_bits_of_a_uniform_guess_and_of_many_portions():
    kind = task("language_modelling", 27)
    metrics = kind.metrics()
    for length in (1, 1, 998):
        kind.update(metrics, torch.zeros(1, length, 27), Batch(torch.zeros(1, 1, 1), torch.randint(0, 27, (1, length))))
    assert metrics.compute()["bpc"].item() == pytest.approx(math.log2(27), rel=1e-6)
    assert metrics.compute()["perplexity"].item() == pytest.approx(27, rel=1e-6)
    metrics.reset()
    kind.update(metrics, torch.zeros(1, 1, 27), Batch(torch.zeros(1, 1, 1), torch.zeros(1, 1, dtype=torch.int64)))
    metrics["bpc"].nats += 2.0**30  # single precision would lose the next one
    kind.update(metrics, torch.zeros(1, 1, 27), Batch(torch.zeros(1, 1, 1), torch.zeros(1, 1, dtype=torch.int64)))
    assert metrics["bpc"].nats.item() == pytest.approx(2.0**30 + 2 * math.log(27), abs=1e-5, rel=0)


def test_every_task_kind_of_the_spec_has_a_task():
    for kind in tasks.names():
        assert task(kind, 2).metric in task(kind, 2).metrics()


def test_reconstruction_counts_valid_values_and_scales_its_metric():
    kind = Reconstruction(DataSpec("made up", 2, 2, "reconstruction", None, 3), scale=torch.tensor([10.0, 1.0]))
    targets = torch.zeros(2, 3, 2)
    outputs = torch.tensor([[[1.0, 2.0], [3.0, 0.0], [5.0, 5.0]], [[1.0, 1.0], [9.0, 9.0], [9.0, 9.0]]])
    batch = Batch(targets, targets, torch.tensor([3, 1]), target_lengths=torch.tensor([2, 1]))
    assert kind.loss(outputs, batch).item() == pytest.approx((1 + 4 + 9 + 0 + 1 + 1) / 6)
    assert kind.weight(batch) == 3
    metrics = kind.metrics()
    kind.update(metrics, outputs, batch)
    assert metrics.compute()["mse"].item() == pytest.approx((100 + 4 + 900 + 0 + 100 + 1) / 6)
    whole = Batch(targets, targets)
    assert kind.loss(outputs, whole).item() == pytest.approx(outputs.square().mean().item())
    assert kind.weight(whole) == 6
