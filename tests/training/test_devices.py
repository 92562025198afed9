"""Several processes divide a batch: their gradients and losses add up to those of one process."""

from types import SimpleNamespace

import pytest
import torch

from seqmem import models
from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.tasks import IGNORE_INDEX, task_for
from seqmem.training import TrainConfig, check_fit
from seqmem.training.loop.mean import WeightedMean
from seqmem.training.loop.module import SequenceModule

MODEL = {
    "network": "recurrent",
    "cell": "rnn",
    "cell_args": {"hidden_size": 4, "hidden_activation": "tanh"},
    "num_layers": 1,
    "embedding_size": None,
    "output_hiddens": [],
    "dropout": 0.0,
}


class Logged(SequenceModule):
    """Keeps what is logged, in a trainer of several processes."""

    def __init__(self, model, task, rank, processes, **train):
        super().__init__(model, task, TrainConfig(**train))
        self.sums = {}
        self._trainer = SimpleNamespace(world_size=processes, global_rank=rank, current_epoch=0)

    def log(self, name, value, **how):
        if isinstance(value, WeightedMean):
            self.sums[name] = (float(value.total), float(value.weight))


TARGETS = ["last steps", "every step", "ignored", "classes"]


def batch_of(targets, rows, steps=5):
    """A padded batch and its spec."""
    lengths = torch.arange(rows) % steps + 1
    inputs = torch.randn(rows, steps, 3, dtype=torch.float64)
    if targets == "classes":
        spec = DataSpec("made", 3, 4, "classification", output_steps=0, max_length=steps)
        return Batch(inputs, torch.randint(0, 4, (rows,)), lengths), spec
    if targets == "ignored":
        spec = DataSpec("made", 3, 4, "classification", output_steps=None, max_length=steps)
        classes = torch.randint(0, 4, (rows, steps))
        return Batch(inputs, classes.where(torch.rand(rows, steps) < 0.7, IGNORE_INDEX), lengths), spec
    spec = DataSpec("made", 3, 2, "forecasting", None if targets == "every step" else steps, max_length=steps)
    return Batch(inputs, torch.randn(rows, steps, 2, dtype=torch.float64), lengths), spec


@pytest.mark.parametrize("targets", TARGETS)
def test_gradients_and_losses_add_up_to_those_of_the_whole_batch(targets):
    for rows, processes in ((7, 2), (6, 4), (2, 3), (5, 1)):
        torch.manual_seed(0)
        check(*batch_of(targets, rows), processes)


@pytest.mark.parametrize(
    "model",
    [
        {"network": "seq2seq_ae", "layer_sizes": [4]},
        {"network": "lstm_ae", "encoding_size": 4},
        {"network": "lstm_ae", "encoding_size": 4, "growth_epochs": 3, "first_window": 2},
    ],
    ids=["mean over rows", "mean over steps", "windows"],
)
def test_losses_of_autoencoders_add_up_to_those_of_the_whole_batch(model):
    """A loss that is no mean over steps, and windows that are shorter than the sequences; each row is constant."""
    spec = DataSpec("made", 3, 3, "reconstruction", output_steps=None, max_length=9)
    for rows, processes in ((7, 2), (4, 3)):
        torch.manual_seed(0)
        inputs = torch.randn(rows, 1, 3, dtype=torch.float64).expand(-1, 9, -1).contiguous()
        batch = Batch(inputs, inputs.clone(), torch.tensor([9, 1, 8, 3, 9, 2, 4])[:rows])
        check(batch, spec, processes, model)


def check(batch, spec, processes, section=MODEL):
    model = models.build(section, spec).double()
    whole = Logged(model, task_for(spec), 0, 1)
    whole.training_step(batch, 0).backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    mean = {name: torch.zeros_like(gradient) for name, gradient in expected.items()}
    total = torch.zeros(2, dtype=torch.float64)
    seen = 0
    for rank in range(processes):
        model.zero_grad()
        module = Logged(model, task_for(spec), rank, processes)
        module.training_step(batch, 0).backward()
        for name, parameter in model.named_parameters():
            mean[name] += parameter.grad / processes
        total += torch.tensor(module.sums["train/loss"], dtype=torch.float64)
        [metric] = list(module.train_metrics.values())[:1]
        seen += metric.update_count
    for name, gradient in expected.items():
        assert torch.allclose(mean[name], gradient, rtol=1e-12, atol=1e-14), name
    value, weight = whole.sums["train/loss"]
    assert float(total[0] / total[1]) == pytest.approx(value / weight, rel=1e-12)
    assert seen <= min(len(batch), processes)
    assert total[1] == model.augmented_weight(batch, task_for(spec))


@pytest.mark.parametrize(("rows", "processes"), [((6, 5), 2), ((7, 6), 2), ((3, 4), 3), ((9, 7), 3), ((4, 1), 2)])
@pytest.mark.parametrize("targets", TARGETS)
def test_batches_of_one_step_add_up_to_those_of_one_process(targets, rows, processes):
    """An even batch and an odd one count by their whole rows in every process, so all have the same totals."""
    torch.manual_seed(1)
    batches, specs = zip(*(batch_of(targets, count) for count in rows), strict=True)
    model = models.build(MODEL, specs[0]).double()

    def step(rank, count):
        model.zero_grad()
        module = Logged(model, task_for(specs[0]), rank, count, accumulate_grad_batches=len(batches))
        for k, batch in enumerate(batches):
            (module.training_step(batch, k) / len(batches)).backward()
        module.window.rescale(model.parameters())
        return [parameter.grad.clone() for parameter in model.parameters()], module.window.total

    expected, total = step(0, 1)
    parts, totals = zip(*(step(rank, processes) for rank in range(processes)), strict=True)
    assert set(totals) == {total}
    for gradient, *shared in zip(expected, *parts, strict=True):
        torch.testing.assert_close(sum(shared) / processes, gradient, rtol=1e-12, atol=1e-14)


def test_a_text_is_not_shared_by_devices():
    spec = DataSpec("text", 27, 27, "language_modelling", output_steps=5, max_length=5, tokens=True, contiguous=True)
    config = {"model": MODEL, "train": {"epochs": 1}, "runner": {"name": "pl", "devices": 2}}
    with pytest.raises(UserError, match=r"runner\.devices: got 2, expected 1 on text"):
        check_fit(config, spec)
