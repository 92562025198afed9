"""Losses, metrics, masks and predictions of every task, by hand."""

import math

import pytest
import torch

from seqmem import tasks
from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.tasks import IGNORE_INDEX, Reconstruction, Regression, Task, task_for

INPUTS = torch.zeros(2, 3, 1)


def task(kind, output_size, output_steps=None):
    return task_for(DataSpec("made up", 1, output_size, kind, output_steps, 5))


def measured(kind, outputs, batch):
    metrics = kind.metrics()
    kind.update(metrics, outputs, batch)
    return {name: value.item() for name, value in metrics.compute().items()}


def test_perfect_logits_of_several_steps_have_no_loss():
    for steps, alphabet in [(12, 10), (3, 7)]:
        targets = torch.randint(0, alphabet, (6, steps))
        logits = 1e4 * torch.nn.functional.one_hot(targets, alphabet).float()
        assert task("classification", alphabet).loss(logits, Batch(logits, targets)).item() == 0
        wrong = logits.roll(1, -1)
        assert task("classification", alphabet).loss(wrong, Batch(wrong, targets)).item() == pytest.approx(1e4)


def test_accuracy_counts_targets_over_all_batches():
    kind = task("classification", 3, 0)
    metrics = kind.metrics()
    kind.update(metrics, torch.eye(3), Batch(INPUTS, torch.tensor([0, 1, 2])))
    kind.update(metrics, torch.eye(3)[:1], Batch(INPUTS, torch.tensor([2])))
    assert metrics.compute()["accuracy"].item() == 0.75


def logits_of(classes, size):
    return torch.nn.functional.one_hot(torch.tensor(classes), size).float()


def test_a_sequence_is_correct_if_all_its_targets_are():
    """Of five sequences, padded, with ignored targets, one is left out and two of four are correct."""
    kind = task("classification", 4)
    ignored = IGNORE_INDEX
    targets = torch.tensor([[1, 2, 3], [1, 2, 3], [ignored, 2, 3], [1, 9, 9], [ignored, ignored, 9]])
    outputs = logits_of([[1, 2, 3], [1, 2, 0], [0, 2, 0], [1, 0, 0], [0, 0, 0]], 4)
    batch = Batch(torch.zeros(5, 3, 1), targets, torch.tensor([3, 3, 3, 1, 2]))
    assert measured(kind, outputs, batch) == {"accuracy": pytest.approx(7 / 9), "sequence_accuracy": 0.5}


def test_sequences_are_counted_over_all_batches():
    for kind in (task("classification", 3, 2), task("next_symbol", 3)):
        metrics = kind.metrics()
        kind.update(metrics, logits_of([[0, 1], [0, 1], [0, 0]], 3), Batch(INPUTS, torch.tensor([[0, 1], [0, 1], [0, 1]])))
        assert metrics.compute()["sequence_accuracy"].item() == pytest.approx(2 / 3)
        kind.update(metrics, logits_of([[0, 0]], 3), Batch(INPUTS, torch.tensor([[0, 1]])))
        kind.update(metrics, logits_of([[0, 0]], 3), Batch(INPUTS, torch.full((1, 2), IGNORE_INDEX)))
        assert metrics.compute() == {"accuracy": 0.75, "sequence_accuracy": 0.5}


def test_one_target_and_parts_of_a_sequence_have_no_accuracy_of_sequences():
    for steps, contiguous in ((0, False), (None, True)):
        spec = DataSpec("made up", 1, 3, "classification", steps, 5, contiguous=contiguous)
        assert set(task_for(spec).metrics()) == {"accuracy"}


def test_mean_squared_error():
    kind = task("regression", 1, 0)
    outputs, batch = torch.tensor([[1.0], [3.0]]), Batch(INPUTS, torch.tensor([[1.0], [1.0]]))
    assert kind.loss(outputs, batch).item() == 2
    assert kind.weight(batch) == 2
    assert measured(kind, outputs, batch) == {"mse": 2}


def test_the_normalised_error_is_the_error_in_units_of_the_targets():
    torch.manual_seed(0)
    kind = task("forecasting", 1)
    assert (kind.metric, kind.best) == ("nrmse", "min")
    outputs, targets = torch.randn(2, 11, 7, 1, dtype=torch.float64).unbind()
    targets += 3
    metrics = kind.metrics()
    for rows in (slice(0, 4), slice(4, 11)):
        kind.update(metrics, outputs[rows], Batch(INPUTS, targets[rows]))
    squared = (outputs - targets).square().mean()
    assert kind.loss(outputs, Batch(INPUTS, targets)).item() == pytest.approx(squared.item())
    found = metrics.compute()
    assert set(found) == {"mse", "nrmse"}
    assert found["mse"].item() == pytest.approx(squared.item(), rel=1e-5)
    assert found["nrmse"].item() == pytest.approx((squared / targets.square().mean()).sqrt().item(), rel=1e-5)
    for forecast, error in ((targets, 0), (torch.zeros_like(targets), 1), (-targets, 2)):
        assert measured(kind, forecast, Batch(INPUTS, targets))["nrmse"] == pytest.approx(error, abs=1e-6)


def test_bits_and_perplexity():
    """Probabilities 1/2, 1/4, 1/8 and 1 of the targets: 1 + 2 + 3 + 0 bits of 4 characters; a padded step does not count."""
    kind = task("language_modelling", 3)
    assert (kind.metric, kind.best) == ("bpc", "min")
    probabilities = torch.tensor([[[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]], [[0.5, 0.375, 0.125], [0.0, 0.0, 1.0]]])
    logits, targets = probabilities.log().clamp(min=-1e4), torch.tensor([[0, 2], [2, 2]])
    batch = Batch(INPUTS, targets)
    assert kind.loss(logits, batch).item() == pytest.approx(6 * math.log(2) / 4)
    assert kind.weight(batch) == 4
    padded = Batch(INPUTS, targets, torch.tensor([1, 2]))
    assert kind.loss(logits, padded).item() == pytest.approx(4 * math.log(2) / 3)
    assert kind.weight(padded) == 3
    metrics = kind.metrics()
    kind.update(metrics, logits, padded)
    kind.update(metrics, logits[:1, 1:], Batch(INPUTS, targets[:1, 1:]))
    found = metrics.compute()
    assert found["bpc"].item() == pytest.approx(6 / 4)
    assert found["perplexity"].item() == pytest.approx(2**1.5)


def test_bits_of_a_uniform_guess_and_of_many_portions():
    kind = task("language_modelling", 27)
    metrics = kind.metrics()
    for length in (1, 1, 998):
        kind.update(metrics, torch.zeros(1, length, 27), Batch(INPUTS, torch.randint(0, 27, (1, length))))
    assert metrics.compute()["bpc"].item() == pytest.approx(math.log2(27), rel=1e-6)
    assert metrics.compute()["perplexity"].item() == pytest.approx(27, rel=1e-6)
    metrics.reset()
    one = Batch(INPUTS, torch.zeros(1, 1, dtype=torch.int64))
    kind.update(metrics, torch.zeros(1, 1, 27), one)
    metrics["bpc"].nats += 2.0**30  # float32 would lose the next one
    kind.update(metrics, torch.zeros(1, 1, 27), one)
    assert metrics["bpc"].nats.item() == pytest.approx(2.0**30 + 2 * math.log(27), abs=1e-5, rel=0)


def test_reconstruction_counts_valid_values_and_scales_its_metric():
    kind = Reconstruction(DataSpec("made up", 2, 2, "reconstruction", None, 3), scale=torch.tensor([10.0, 1.0]))
    targets = torch.zeros(2, 3, 2)
    outputs = torch.tensor([[[1.0, 2.0], [3.0, 0.0], [5.0, 5.0]], [[1.0, 1.0], [9.0, 9.0], [9.0, 9.0]]])
    batch = Batch(targets, targets, torch.tensor([3, 1]), target_lengths=torch.tensor([2, 1]))
    assert kind.loss(outputs, batch).item() == pytest.approx((1 + 4 + 9 + 0 + 1 + 1) / 6)
    assert kind.weight(batch) == 3
    assert measured(kind, outputs, batch)["mse"] == pytest.approx((100 + 4 + 900 + 0 + 100 + 1) / 6)
    whole = Batch(targets, targets)
    assert kind.loss(outputs, whole).item() == pytest.approx(outputs.square().mean().item())
    assert kind.weight(whole) == 6


@pytest.mark.parametrize("name", tasks.names())
def test_padded_steps_do_not_count(name):
    """Outputs at every step: NaN in the padding reaches neither loss, gradient, weight nor metrics."""
    torch.manual_seed(0)
    kind = task(name, 3)
    lengths = torch.tensor([4, 1, 3])
    outputs = torch.randn(3, 4, 3, requires_grad=True)
    targets = torch.randint(0, 3, (3, 4)) if kind.class_targets else torch.randn(3, 4, 3)
    valid = [(row, step) for row, length in enumerate(lengths.tolist()) for step in range(length)]
    counted = tuple(torch.tensor(valid).T)
    dense = Batch(torch.zeros(1, 8, 1), targets[counted][None])
    spoiled = outputs.where(torch.arange(4)[:, None] < lengths[:, None, None], math.nan)
    batch = Batch(torch.zeros(3, 4, 1), targets, lengths)
    assert kind.weight(batch) == kind.weight(dense) == 8
    loss = kind.loss(spoiled, batch)
    torch.testing.assert_close(loss, kind.loss(outputs[counted][None], dense))
    found, expected = measured(kind, spoiled.detach(), batch), measured(kind, outputs[counted][None].detach(), dense)
    assert found[kind.metric] == pytest.approx(expected[kind.metric])
    loss.backward()
    assert outputs.grad.isfinite().all()


def test_classes_without_padding_wait_for_no_device():
    """A value of a meta tensor cannot be read, as one of a GPU cannot without waiting for it."""
    kind = task("classification", 3)
    batch = Batch(INPUTS, torch.zeros(INPUTS.shape[:2], dtype=torch.int64)).to("meta")
    assert kind.loss(torch.zeros(*INPUTS.shape[:2], 3, device="meta"), batch).shape == ()
    assert kind.weight(batch) == batch.targets.numel()


def test_without_padding_nothing_is_selected():
    """The unmasked path keeps the numbers of data sets without lengths, and of one target a row."""
    kind = task("regression", 1)
    targets = torch.randn(2, 3, 1)
    assert kind.counted(Batch(INPUTS, targets)) is None
    assert kind.selected(targets, Batch(INPUTS, targets))[0] is targets
    assert kind.weight(Batch(INPUTS, targets)) == 6
    one_a_row = Batch(INPUTS, torch.tensor([0, 1]), torch.tensor([3, 1]))
    assert task("classification", 2, 0).counted(one_a_row) is None
    assert task("classification", 2, 0).weight(one_a_row) == 2


def test_of_the_last_steps_those_before_the_sequence_do_not_count():
    kind = task("regression", 1, output_steps=2)
    outputs, targets = torch.tensor([[[9.0], [1.0]], [[2.0], [3.0]]]), torch.zeros(2, 2, 1)
    batch = Batch(INPUTS, targets, torch.tensor([1, 3]))
    assert kind.weight(batch) == 3
    assert kind.loss(outputs, batch).item() == pytest.approx((1 + 4 + 9) / 3)


def test_an_ignored_target_does_not_count():
    for name in ["classification", "language_modelling"]:
        torch.manual_seed(0)
        kind = task(name, 5)
        outputs, targets = torch.randn(2, 3, 5), torch.tensor([[1, IGNORE_INDEX, 2], [IGNORE_INDEX, 4, 0]])
        dense = Batch(INPUTS, torch.tensor([[1, 2, 4, 0]]))
        kept = outputs[targets != IGNORE_INDEX][None]
        batch = Batch(INPUTS, targets)
        assert kind.weight(batch) == 4
        assert kind.loss(outputs, batch).item() == pytest.approx(kind.loss(kept, dense).item())
        assert measured(kind, outputs, batch)[kind.metric] == pytest.approx(measured(kind, kept, dense)[kind.metric])
        padded = Batch(INPUTS, targets, torch.tensor([3, 2]))
        assert kind.weight(padded) == 3
        assert kind.loss(outputs, padded).item() == pytest.approx(
            kind.loss(kept[:, :3], Batch(INPUTS, dense.targets[:, :3])).item()
        )
        written = kind.predictions(outputs, batch)
        assert torch.equal(written["target"], targets)
        assert written["probability"].isnan().sum() == (2 if kind.excerpt == "text" else 0)


def test_a_batch_of_ignored_targets_has_no_loss_and_no_weight():
    kind = task("classification", 5, 0)
    outputs = torch.randn(2, 5, requires_grad=True)
    batch = Batch(INPUTS, torch.full((2,), IGNORE_INDEX))
    loss = kind.loss(outputs, batch)
    loss.backward()
    assert (loss.item(), kind.weight(batch)) == (0, 0)
    assert outputs.grad.eq(0).all()
    kind.update(kind.metrics(), outputs.detach(), batch)


def test_predictions_are_classes_symbols_or_values():
    logits, targets = torch.tensor([[[0.0, math.log(3)]]]), torch.tensor([[0]])
    classes = task("classification", 2).predictions(logits, Batch(INPUTS, targets))
    assert (classes["prediction"].item(), classes["probability"].flatten().tolist()) == (1, pytest.approx([0.25, 0.75]))
    symbols = task("language_modelling", 2).predictions(logits, Batch(INPUTS, targets))
    assert (symbols["prediction"].item(), symbols["probability"].item()) == (1, pytest.approx(0.25))
    values = task("regression", 2).predictions(logits, Batch(INPUTS, logits))
    assert list(values) == ["target", "prediction"]
    assert values["prediction"] is logits


def test_what_a_task_says_of_itself():
    for name in tasks.names():
        kind = task(name, 2)
        assert kind.metric in kind.metrics()
        assert kind.metric_label
        assert kind.best in ("min", "max")
        assert tasks.get(name) is type(kind)
    shown = {name: task(name, 2).excerpt for name in tasks.names()}
    assert shown == {
        "classification": None,
        "forecasting": "series",
        "language_modelling": "text",
        "next_symbol": None,
        "reconstruction": None,
        "regression": "series",
    }
    assert task("regression", 2, output_steps=0).excerpt is None
    assert [name for name in tasks.names() if tasks.get(name).reconstructs] == ["reconstruction"]
    following = [name for name in tasks.names() if tasks.get(name).predicts_following]
    assert following == ["forecasting", "language_modelling", "next_symbol"]
    spec = DataSpec("waves", 1, 1, "regression", None, 5, irreducible_error=0.25)
    assert task_for(spec).irreducible_error == 0.25


def test_a_task_registers_itself_by_its_name():
    class Absolute(Regression):
        name = "absolute"
        metric_label = "mean absolute error"

        def criterion(self, outputs, targets):
            return (outputs - targets).abs().mean()

    try:
        kind = task("absolute", 1)
        assert isinstance(kind, Absolute)
        assert kind.loss(torch.full((1, 2, 1), 3.0), Batch(INPUTS, torch.ones(1, 2, 1))).item() == 2
    finally:
        del tasks.base._registry["absolute"]

    class Unnamed(Task):
        pass

    assert "Unnamed" not in tasks.names()


def test_an_unknown_task_is_named_with_the_nearest_one():
    with pytest.raises(UserError, match=r"task of made up: got 'clasification', expected .*; did you mean 'classification'\?"):
        task("clasification", 2)
    with pytest.raises(UserError, match=r"task: got 'x', expected .*; choose from: classification, forecasting"):
        tasks.get("x")
