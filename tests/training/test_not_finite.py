"""What is first not finite in a step: data, weights, outputs, loss or gradients, found by computing the step again."""

import json
import math
import random
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from seqmem import datasets, models
from seqmem.cells import Recurrence
from seqmem.cli import commandline
from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.sequence import layer
from seqmem.tasks import task_for
from seqmem.training.loop import lean, module
from seqmem.training.loop.loss_check import LossCheck
from seqmem.training.loop.not_finite import Finding, NotFiniteError, first_not_finite
from tests.engines.commands import run
from tests.training.test_resume import CASES, SMALL, composed
from tests.trials import run_trials

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

SPEC = DataSpec("made up", 3, 2, "regression", None, 5)
EXPLODING = ["model=rnn", "model.cell_args.hidden_activation=relu", "train.optimizer=sgd", "train.lr=1e20"]


class Divides(Recurrence):
    """A cell of a user, which divides by its input; without a name, so that other tests do not find it."""

    def __init__(self, input_size: int, hidden_size: int = 4):
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size
        self.inward = nn.Linear(input_size, hidden_size)

    def initial_state(self, batch_size):
        return (self.inward.weight.new_zeros(batch_size, self.output_size),)

    def project(self, inputs):
        return self.inward(inputs) / inputs[..., :1]

    def advance(self, projected, state, scheduled):
        hidden = torch.tanh(state[0]) + projected
        return hidden, (hidden,)


def batch(rows=4, **changes):
    made = Batch(torch.rand(rows, 5, 3) + 1, torch.rand(rows, 5, 2), torch.tensor([5, 3, 4, 5][:rows]))
    made.inputs[1, 3:] = math.nan  # padding, which counts nowhere
    made.targets[1, 4] = math.nan
    return made


def search(model, given, loss=None):
    task = task_for(SPEC)
    return first_not_finite(model, task, given, loss or (lambda: model.learn(given, task)[1]))


@pytest.fixture
def gru():
    torch.manual_seed(0)
    return models.RecurrentNetwork(SPEC, "gru", {"hidden_size": 4})


def test_a_finite_step_has_nothing_and_padding_does_not_count(gru):
    assert search(gru, batch()) is None


def test_data_are_named_by_row_and_step(gru):
    given = batch()
    given.inputs[2, 3, 1], given.inputs[0, 4, 0] = math.inf, math.nan
    found = search(gru, given)
    assert (found.what, found.row, found.step) == ("inputs", 2, 3)
    assert found.words == "the inputs of the data, row 2, time step 3: inf"
    given = batch()
    given.targets[1, 2, 1] = -math.inf
    assert search(gru, given).words == "the targets of the data, row 1, time step 2: -inf"


def test_weights_and_buffers_are_named(gru):
    name, weight = list(gru.named_parameters())[1]
    weight.data.view(-1)[1] = math.nan
    assert search(gru, batch()) == Finding("weight", f"{name}, before the step", name.rpartition(".")[0], name)


def test_the_first_layer_with_such_an_output_is_named_with_its_largest_weight(gru):
    gru.head[0].bias.data[:] = 3e38
    gru.head[0].weight.data[:] = 3e38
    found = search(gru, batch())
    assert (found.what, found.layer, found.parameter) == ("output", "head.0", "head.0.weight")
    assert found.words.startswith("the output of head.0 (Linear), row ")
    assert found.words.endswith("inf (largest weight: head.0.weight, 3e+38)")


def test_a_division_in_a_cell_of_a_user_is_found_at_its_step(monkeypatch):
    monkeypatch.setitem(layer._registry, "divides", Divides)
    torch.manual_seed(0)
    model = models.RecurrentNetwork(SPEC, "divides", {})
    given = batch()
    given.inputs[3, 2, 0] = 0
    found = search(model, given)
    assert (found.what, found.layer, found.row, found.step) == ("output", "layers.0", 3, 2)
    assert "(Divides), row 3, time step 2: " in found.words


def test_a_loss_of_finite_outputs_is_named_and_then_gradients_in_the_order_of_backward(gru):
    given, task = batch(), task_for(SPEC)
    found = search(gru, given, lambda: gru.learn(given, task)[1] + gru.learn(given, task)[0].abs().max() * 0 + math.inf)
    assert found.what == "loss"
    assert found.words.startswith("the loss of finite outputs, of at most ")
    assert found.words.endswith(": inf")

    def root():
        return gru.learn(given, task)[1] + (0 * gru.head[0].weight).square().sum().sqrt()

    assert search(gru, given, root) == Finding("gradient", "the gradient of head.0.weight", "head.0", "head.0.weight")

    def of_output():
        return gru.learn(given, task)[1] + (0 * gru(given)).square().sum().sqrt()

    found = search(gru, given, of_output)
    assert (found.what, found.layer) == ("gradient of an output", "head.0")
    assert all(parameter.grad is None for parameter in gru.parameters())


def test_the_lean_loop_names_the_data():
    from tests.training import test_lean

    spoiled = test_lean.batches()[:2]
    spoiled[1].targets[1, 2] = math.nan
    with pytest.raises(
        UserError, match=r"at batch 1 of .*; first not finite: the targets of the data, row 1, time step 2: nan; c"
    ):
        test_lean.lean().run(lambda _: spoiled, range(2), lean.Observer())


@pytest.mark.parametrize("case", ["sampled_text", "igloo_dropout"])
def test_a_step_that_is_computed_again_has_the_same_loss_and_leaves_no_trace(case, tmp_path, monkeypatch):
    """Also with random numbers, and with the state of a text."""
    more = {}
    if case.endswith("text"):
        (tmp_path / "words.txt").write_text("the quick brown fox jumps over the lazy dog " * 100)
        more = {"dataset": "text", "path": tmp_path / "words.txt", "length": 20}
    dropout = ["model.DR=0.3"] if case.startswith("igloo") else []
    config = composed(*CASES[case], *dropout, "train.batch_size=5", "train.epochs=2", **more)
    data = datasets.load(config["dataset"])
    [plain] = run_trials(config, data, tmp_path / "plain")
    again = []

    def searched(model, task, given, loss):
        found = first_not_finite(model, task, given, lambda: again.append(value := loss()) or value)
        assert found is None

    monkeypatch.setattr(module, "first_not_finite", searched)
    add, losses = LossCheck.add, []

    def checked(self, loss, step, find=lambda: None):
        losses.append(loss.item())
        states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
        find()
        assert torch.equal(states[0], torch.get_rng_state())
        assert np.array_equal(states[1], np.random.get_state()[1])  # noqa: NPY002
        assert states[2] == random.getstate()
        add(self, loss, step, find)

    monkeypatch.setattr(LossCheck, "add", checked)
    [folder] = run_trials(config, data, tmp_path / "watched")
    assert len(losses) == 6
    assert [value.item() for value in again] == losses
    assert folder.read_metrics()["train/loss"].tolist() == plain.read_metrics()["train/loss"].tolist()


def failed(config, data, folder):
    """The error and the record of a trial."""
    with pytest.raises(NotFiniteError) as error:
        run_trials(config, data, folder)
    assert "\n" not in str(error.value)
    [path] = folder.glob("*/seed_0/record.json")
    record = json.loads(path.read_text())
    assert record["status"] == "failed"
    return str(error.value), record["not_finite"]


def test_a_sequence_of_the_data_is_named_by_its_number(tmp_path, monkeypatch):
    config = composed("model=rnn", "train.limit_train_batches=1.0", "train.batch_size=50")
    data = datasets.load(config["dataset"])
    original = type(data).batch

    def spoiled(self, split, indices):
        made = original(self, split, indices)
        if split == "train":
            made.inputs[indices == 777, 20:] = math.nan
        return made

    monkeypatch.setattr(type(data), "batch", spoiled)
    message, found = failed(config, data, tmp_path)
    assert "first not finite: the inputs of the data, row " in message
    assert "time step 20: nan (sequence 777 of the training split); correct the data, or leave these sequences out" in message
    assert (found["what"], found["sequence"], found["step"]) == ("inputs", 777, 20)


@pytest.mark.parametrize("deferred", [False, True])
def test_an_exploding_network_is_found_at_once_or_by_repeating_the_steps(deferred, tmp_path, monkeypatch, capsys):
    """Deferred as on a GPU, where the weights are lost when the loss is checked."""
    if deferred:
        monkeypatch.setattr(module, "LossCheck", partial(LossCheck, deferred=True))
    config = composed(*EXPLODING)
    message, found = failed(config, datasets.load(config["dataset"]), tmp_path)
    assert message.startswith("the training loss became ")
    assert found["what"] == "output"
    assert found["layer"].startswith("layers.0")
    assert f"first not finite: {found['words']}; try a train.lr below 1e+20, or train.gradient_clip_val=1" in message
    assert ("repeating the steps since the last checkpoint" in capsys.readouterr().out) == deferred


@pytest.mark.parametrize(
    ("epoch", "keys"),
    [
        (1, []),
        (1, ["train.ema=0.9", "train.accumulate_grad_batches=2", "train.checkpoint_minutes=0"]),
        (0, ["train.checkpoint_minutes=0"]),  # before there is a best checkpoint
    ],
)
def test_a_gradient_of_an_earlier_step_is_found_from_the_last_checkpoint(epoch, keys, tmp_path, monkeypatch):
    """The loss of batch 1 is finite and its gradient is not; the next loss shows it."""
    config = composed("model=gru", *keys)
    data = datasets.load(config["dataset"])
    steps = module.SequenceModule.training_step

    def spoiled(self, given, batch_idx):
        network = self.model
        bad = (self.current_epoch, batch_idx) == (epoch, 1)
        network.penalty = lambda: (0.0 * network.head[0].weight).square().sum().sqrt() if bad else None
        return steps(self, given, batch_idx)

    monkeypatch.setattr(module.SequenceModule, "training_step", spoiled)
    message, found = failed(config, data, tmp_path)
    assert (found["what"], found["layer"], found["parameter"]) == ("gradient", "head.0", "head.0.weight")
    assert f"first not finite: the gradient of head.0.weight (batch 1 of epoch {epoch + 1}); try a train.lr below" in message


def test_an_update_that_overflows_is_named_with_its_weight(tmp_path):
    config = commandline.compose([*SMALL, "model=gru", "model.preset=tiny", "train.lr=1e38", "train.optimizer=sgd"])
    config["train"]["wd"] = 100.0
    message, found = failed(config, datasets.load(config["dataset"]), tmp_path)
    assert found["what"] == "update"
    assert f"first not finite: {found['parameter']} after an update by gradients of at most " in message


@pytest.mark.slow
@pytest.mark.parametrize("keys", [EXPLODING, ["model=gru", "train.lr=1e38", "train.optimizer=sgd", "train.wd=100"]])
def test_several_processes_end_with_the_finding(keys, tmp_path):
    small = ["dataset=digits", "model.preset=tiny", "train.limit_train_batches=3", "train.limit_val_batches=1"]
    done = run(*small, *keys, "runner.devices=2", "runner.accelerator=cpu", f"output_dir={tmp_path}", cwd=tmp_path)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "; first not finite: " in line
