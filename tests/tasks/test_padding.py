"""Padding never counts: every task and network on a padded batch, against a plain loop over its rows without padding."""

from dataclasses import replace

import pytest
import torch

from seqmem import models
from seqmem.data import Batch, DataSpec, counted_targets
from seqmem.data.batch import IGNORE_INDEX
from seqmem.data.masks import last_steps
from seqmem.errors import UserError
from seqmem.tasks import task_for
from seqmem.training.evaluation.predictions import Predictions
from seqmem.training.evaluation.review import sequence_errors

LENGTHS = [7, 1, 4]
NETWORKS = {
    "gru": {"network": "recurrent", "cell": "gru", "cell_args": {"hidden_size": 4}},
    "stack": {"network": "stack", "mixer": "ema", "model_size": 4, "num_layers": 1},
    "tcn": {"network": "tcn", "hidden_size": 4, "kernel_size": 2},
}
TASKS = [
    *((task, steps) for task in ("classification", "regression") for steps in (None, 0, 3)),
    ("forecasting", None),
    ("language_modelling", None),
]


def rows_of(spec: DataSpec) -> list[Batch]:
    """Each row as a batch of its own, without padding."""
    random = torch.Generator().manual_seed(0)
    rows = []
    for length in LENGTHS:
        inputs = torch.randn(1, length, spec.input_size, generator=random)
        shape = {0: (1,), None: (1, length)}.get(spec.output_steps, (1, min(length, spec.output_steps or 0)))
        if spec.task in ("classification", "language_modelling"):
            targets = torch.randint(0, spec.output_size, shape, generator=random)
        else:
            targets = torch.randn(*shape, spec.output_size, generator=random)
        rows.append(Batch(inputs.argmax(-1) if spec.tokens else inputs, targets))
    return rows


def padded(rows: list[Batch], spec: DataSpec) -> Batch:
    """The rows as one batch, whose padding is NaN, or a class that does not exist."""

    def joined(tensors, fill, at_the_end=False):
        steps = max(tensor.shape[1] for tensor in tensors)
        whole = tensors[0].new_full((len(tensors), steps, *tensors[0].shape[2:]), fill)
        for row, tensor in enumerate(tensors):
            start = steps - tensor.shape[1] if at_the_end else 0
            whole[row, start : start + tensor.shape[1]] = tensor[0]
        return whole

    inputs, targets = [row.inputs for row in rows], [row.targets for row in rows]
    wrong = float("nan") if targets[0].is_floating_point() else 10**6
    several = torch.cat(targets) if spec.output_steps == 0 else joined(targets, wrong, spec.output_steps is not None)
    return Batch(joined(inputs, 0 if spec.tokens else float("nan")), several, torch.tensor(LENGTHS))


@pytest.mark.parametrize("network", NETWORKS)
def test_a_padded_batch_has_the_loss_weight_metrics_and_gradient_of_its_rows(network):
    for name, steps in TASKS:
        spec = DataSpec("made up", 3, 3, name, steps, 7, tokens=name == "language_modelling")
        torch.manual_seed(0)
        model = models.build(NETWORKS[network], spec).double()
        rows = rows_of(spec)
        rows = rows if spec.tokens else [replace(row, inputs=row.inputs.double()) for row in rows]
        whole, task = padded(rows, spec), task_for(spec)

        counts, losses, metrics = [], [], task.metrics()
        for row in rows:
            # A row of fewer steps than outputs has as many outputs as steps.
            short = spec if not steps else replace(spec, output_steps=min(steps, row.inputs.shape[1]))
            alone = models.build(NETWORKS[network], short).double()
            alone.load_state_dict(model.state_dict())
            alone.output_steps = short.output_steps  # of TCN
            outputs = torch.func.functional_call(alone, dict(model.named_parameters()), (row,))
            counts.append(task_for(short).weight(row))
            losses.append(task_for(short).loss(outputs, row) * counts[-1])
            task_for(short).update(metrics, outputs.detach(), row)
        expected = sum(losses) / sum(counts)
        expected_gradient = torch.autograd.grad(expected, list(model.parameters()), allow_unused=True)

        outputs, loss = model.learn(whole, task)
        gradient = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        found = task.metrics()
        task.update(found, outputs.detach(), whole)
        assert task.weight(whole) == sum(counts), (name, steps)
        torch.testing.assert_close(loss.double(), expected.double())
        assert {key: value.item() for key, value in found.compute().items()} == pytest.approx(
            {key: value.item() for key, value in metrics.compute().items()}, rel=1e-5
        ), (name, steps)
        for one, other in zip(gradient, expected_gradient, strict=True):
            torch.testing.assert_close(one, other, msg=f"{name} {steps}")


@pytest.mark.parametrize(
    "network",
    [{"network": "lstm_ae", "encoding_size": 3, "hidden_sizes": []}, {"network": "function_approximation", "order": 4}],
)
def test_a_padded_reconstruction_has_the_error_of_its_rows(network):
    spec = DataSpec("made up", 1, 1, "reconstruction", None, 7)
    torch.manual_seed(0)
    model, task = models.build(network, spec), task_for(spec)
    rows = [replace(row, targets=row.inputs) for row in rows_of(replace(spec, task="regression"))]
    whole = padded(rows, spec)
    with torch.no_grad():
        outputs = model(whole)
        errors = torch.cat([(model(row) - row.targets).square().flatten() for row in rows])
        each = torch.stack([(model(row) - row.targets).square().mean() for row in rows])
        torch.testing.assert_close(sequence_errors(model, whole), each)
    assert task.loss(outputs, whole).item() == pytest.approx(errors.mean().item(), rel=1e-5)
    assert task.weight(whole) == len(errors) == sum(LENGTHS)
    metrics = task.metrics()
    task.update(metrics, outputs, whole)
    assert metrics.compute()["mse"].item() == pytest.approx(errors.mean().item(), rel=1e-5)


def test_the_read_out_of_a_padded_signal_is_fitted_to_its_valid_steps():
    spec = DataSpec("made up", 1, 1, "reconstruction", None, 7)
    rows = [replace(row, targets=row.inputs) for row in rows_of(replace(spec, task="regression"))]
    read_outs = []
    for batches in (rows, [padded(rows, spec)]):
        torch.manual_seed(0)
        model = models.build({"network": "function_approximation", "memory": "lstm", "order": 4}, spec)
        model.prepare(sorted(batches, key=lambda batch: batch.inputs.shape[1]))
        read_outs.append(model.read_out)
    torch.testing.assert_close(*read_outs)


def test_last_steps_of_short_rows_are_zero_and_do_not_count():
    outputs, lengths = 1 + torch.arange(24.0).view(2, 6, 2), torch.tensor([6, 3])
    taken = last_steps(outputs, 4, lengths)
    assert torch.equal(taken[0], outputs[0, 2:])
    assert torch.equal(taken[1], torch.cat([torch.zeros(1, 2), outputs[1, :3]]))
    batch = Batch(outputs, torch.zeros(2, 4, 2), lengths)
    assert counted_targets(batch, (2, 4), 4, classes=False).tolist() == [[True] * 4, [False, True, True, True]]


def test_sequences_shorter_than_the_last_steps_are_refused():
    short = r"a batch of sequences that are too short: got T=2, expected at least 3 steps, one for each of the last outputs"
    with pytest.raises(UserError, match=short):
        last_steps(torch.zeros(2, 2, 1), 3, None)
    spec = DataSpec("made up", 3, 3, "classification", 3, 7)
    batch = Batch(torch.zeros(1, 2, 3), torch.zeros(1, 3, dtype=torch.int64))
    for network in [*NETWORKS.values(), {"network": "igloo"}]:
        with pytest.raises(UserError, match=short):
            models.build(network, spec)(batch)
    with pytest.raises(
        UserError, match=r"DataSpec\.output_steps: got 8 last steps with an output, expected at most max_length=7"
    ):
        replace(spec, output_steps=8)


def test_a_row_without_a_step_does_not_count():
    for name in ("classification", "regression"):
        task = task_for(DataSpec("made up", 3, 3, name, 0, 7))
        targets = torch.tensor([1, 10**6]) if task.class_targets else torch.tensor([[1.0] * 3, [float("nan")] * 3])
        batch = Batch(torch.zeros(2, 7, 3), targets, torch.tensor([7, 0]))
        outputs = torch.randn(2, 3)
        assert task.weight(batch) == 1
        assert task.loss(outputs, batch) == task.loss(outputs[:1], batch.rows(slice(1)))


def test_written_predictions_have_the_valid_steps_alone(tmp_path):
    spec = DataSpec("made up", 3, 1, "regression", 3, 7)
    rows = rows_of(spec)
    kept = Predictions(task_for(spec))
    kept.observe(padded(rows, spec), {"outputs": torch.zeros(3, 3, 3)})
    arrays = kept._arrays()
    assert arrays["steps"].tolist() == [3, 1, 3]
    for row, (targets, steps) in enumerate(zip(arrays["target"], arrays["steps"], strict=True)):
        assert targets[:steps].tolist() == rows[row].targets[0].tolist()
        assert not targets[steps:].any()
    assert [line[:3] for line in kept._lines()][1:] == [
        [str(row), str(length), str(step)] for row, length in enumerate(LENGTHS) for step in range(min(3, length))
    ]


@pytest.mark.parametrize(("task", "steps"), TASKS)
def test_a_batch_on_a_device_counts_by_its_copy_on_the_host(task, steps):
    spec = DataSpec("padded", 4, 4, task, steps, 9, tokens=task == "language_modelling")
    batch, outputs = padded(rows_of(spec), spec), None
    if spec.task in ("classification", "language_modelling") and steps != 0:
        batch.targets[0, -1] = IGNORE_INDEX
    results = []
    for given in (batch, replace(batch, host=batch)):
        outputs = torch.linspace(-1, 1, 4 * batch.targets.shape[0] * (1 if steps == 0 else batch.targets.shape[1]))
        shape = batch.targets.shape if batch.targets.is_floating_point() else (*batch.targets.shape, 4)
        outputs = outputs.view(shape).requires_grad_()
        loss = task_for(spec).loss(outputs, given)
        results.append((loss, *task_for(spec).selected(outputs, given), *torch.autograd.grad(loss, outputs)))
        assert task_for(spec).weight(given) == task_for(spec).weight(batch)
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_the_copy_on_the_host_follows_a_batch():
    batch = Batch(torch.randn(3, 5, 2), torch.zeros(3, 5, dtype=torch.int64), torch.tensor([5, 2, 0]))
    there = batch.to("meta")
    assert there.host is batch
    assert there.on_host is batch
    assert there.has_empty_rows
    assert there.rows(slice(2)).host.lengths.tolist() == [5, 2]
    assert replace(there, inputs=there.inputs + 1).to("meta").host is batch
    assert replace(batch, host=batch).to("cpu").host is None
