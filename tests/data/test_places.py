"""Outputs at the steps whose targets count: the same loss and metrics as from outputs at every step."""

from dataclasses import replace

import pytest
import torch

from seqmem import models
from seqmem.data import IGNORE_INDEX, Batch, DataSpec
from seqmem.data.places import at_counted_steps
from seqmem.models.base import SequenceModel
from seqmem.tasks import task_for

SPEC = DataSpec("sparse", 7, 7, "classification", None, max_length=9, tokens=True, sparse_targets=True)
NETWORKS = {
    "recurrent": {"network": "recurrent", "cell": "lstm", "cell_args": {"hidden_size": 5}},
    "stack": {"network": "stack", "mixer": "ema", "model_size": 4, "num_layers": 1},
    "tcn": {"network": "tcn", "hidden_size": 4, "kernel_size": 2},
    "igloo": {"network": "igloo", "nb_patches": 4, "patch_size": 2},
    "hmlstm": {"network": "hmlstm", "cell_args": {"hidden_size": [4, 3], "num_layers": 2}},
}


def batch(lengths=None):
    """Six rows of nine steps with 0 to 5 targets that count."""
    random = torch.Generator().manual_seed(0)
    targets = torch.full((6, 9), IGNORE_INDEX)
    for row in range(6):
        steps = torch.randperm(9, generator=random)[:row]
        targets[row, steps] = torch.randint(0, 7, (row,), generator=random)
    return Batch(torch.randint(0, 7, (6, 9), generator=random), targets, lengths)


@pytest.mark.parametrize("lengths", [None, torch.tensor([9, 3, 9, 0, 6, 8])])
def test_the_targets_that_count_keep_their_steps(lengths):
    given = batch(lengths)
    reduced = at_counted_steps(given)
    most = 0
    for row in range(6):
        valid = 9 if lengths is None else int(lengths[row])
        expected = [(step, int(given.targets[row, step])) for step in range(valid) if given.targets[row, step] >= 0]
        pairs = zip(reduced.places[row].tolist(), reduced.targets[row].tolist(), strict=True)
        assert [pair for pair in pairs if pair[1] != IGNORE_INDEX] == expected
        most = max(most, len(expected))
    assert reduced.targets.shape == (6, most)
    assert reduced.inputs is given.inputs
    assert at_counted_steps(reduced) is reduced


def test_a_batch_that_cannot_shrink_stays():
    full = replace(batch(), targets=torch.zeros(6, 9, dtype=torch.int64))
    assert at_counted_steps(full) is full
    one = full.targets.clone()
    one[1:] = IGNORE_INDEX
    row = replace(full, targets=one)
    assert at_counted_steps(row) is row
    nothing = at_counted_steps(replace(full, targets=torch.full((6, 9), IGNORE_INDEX)))
    assert nothing.targets.tolist() == [[IGNORE_INDEX]] * 6


def test_a_copy_on_a_device_gets_the_same_places():
    host = batch()
    reduced = at_counted_steps(replace(host, host=host))
    assert torch.equal(reduced.places, at_counted_steps(host).places)
    assert torch.equal(reduced.targets, reduced.host.targets)


class OwnModel(SequenceModel):
    """A user's model, which knows nothing of places."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(-1, 1, 49).view(7, 7))

    def forward(self, batch):
        return self.weight[batch.inputs]


@pytest.mark.parametrize("lengths", [None, torch.tensor([9, 3, 9, 0, 6, 8])])
@pytest.mark.parametrize("network", [*NETWORKS, "own"])
def test_loss_gradients_and_metrics_are_those_of_outputs_at_every_step(network, lengths):
    torch.manual_seed(0)
    model = OwnModel() if network == "own" else models.build(NETWORKS[network], SPEC)
    model = model.double().eval()
    task = task_for(SPEC)
    found = []
    for given in (batch(lengths), at_counted_steps(batch(lengths))):
        model.zero_grad()
        outputs, loss = model.learn(given, task)
        loss.backward()
        metrics = task.metrics()
        task.update(metrics, outputs.detach(), given)
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        found.append((loss, gradients, metrics.compute(), task.weight(given), outputs.shape[1]))
    whole, sparse = found
    torch.testing.assert_close(whole[:4], sparse[:4])
    assert (whole[4], sparse[4]) == (9, 5 if lengths is None else at_counted_steps(batch(lengths)).targets.shape[1])
