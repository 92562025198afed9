"""Several processes share a batch: what each contributes adds up to what one process alone computes."""

from types import SimpleNamespace

import pytest
import torch

from seqmem import models
from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.tasks import task_for
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
    """Keeps what is logged; stands in a trainer of several processes."""

    def __init__(self, model, task, rank, processes):
        super().__init__(model, task, TrainConfig())
        self.sums = {}
        self._trainer = SimpleNamespace(world_size=processes, global_rank=rank, current_epoch=0)

    def log(self, name, value, **how):
        if isinstance(value, WeightedMean):
            self.sums[name] = (float(value.total), float(value.weight))


@pytest.mark.parametrize("task", ["forecasting", "classification"])
@pytest.mark.parametrize(("rows", "processes"), [(7, 2), (6, 4), (2, 3), (5, 1)])
def test_gradients_and_losses_add_up_to_those_of_the_whole_batch(task, rows, processes):
    torch.manual_seed(0)
    steps = 5
    lengths = torch.arange(rows) % steps + 1
    inputs = torch.randn(rows, steps, 3, dtype=torch.float64)
    if task == "forecasting":
        spec = DataSpec("made", 3, 2, task, output_steps=steps, max_length=steps)
        batch = Batch(inputs, torch.randn(rows, steps, 2, dtype=torch.float64), lengths)
    else:
        spec = DataSpec("made", 3, 4, task, output_steps=0, max_length=steps)
        batch = Batch(inputs, torch.randint(0, 4, (rows,)), lengths)
    model = models.build(MODEL, spec).double()
    whole = Logged(model, task_for(spec), 0, 1)
    whole.training_step(batch, 0).backward()
    wanted = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    mean = {name: torch.zeros_like(gradient) for name, gradient in wanted.items()}
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
    for name, gradient in wanted.items():
        assert torch.allclose(mean[name], gradient, rtol=1e-12, atol=1e-14), name
    value, weight = whole.sums["train/loss"]
    assert float(total[0] / total[1]) == pytest.approx(value / weight, rel=1e-12)
    assert seen == min(rows, processes)


def test_a_text_is_not_shared_by_devices():
    spec = DataSpec("text", 27, 27, "language_modelling", output_steps=5, max_length=5, tokens=True, contiguous=True)
    config = {"model": MODEL, "train": {"epochs": 1}, "runner": {"name": "pl", "devices": 2}}
    with pytest.raises(UserError, match=r"runner\.devices: got 2, expected 1 on text"):
        check_fit(config, spec)
