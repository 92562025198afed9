"""The moving average of the weights: its value, where it is used, and what it leaves alone."""

import pytest
import torch

import seqmem
from seqmem import datasets
from seqmem.cli import commandline
from seqmem.errors import UserError
from seqmem.training.checkpoints.files import read_checkpoint, restore
from seqmem.training.evaluation.measure import evaluate
from seqmem.training.loop.averaging import TRAINED, WeightAverage
from tests.training.test_resume import SMALL, composed
from tests.trials import run_trials, saved

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")


@pytest.fixture
def averaged(tmp_path, monkeypatch):
    """Weights before each update of the average in a trial with ``train.ema=0.3``."""
    history = []
    update = WeightAverage.on_train_batch_end

    def noted(self, trainer, pl_module, *arguments):
        history.append({name: value.detach().clone() for name, value in pl_module.named_parameters()})
        update(self, trainer, pl_module, *arguments)

    start = WeightAverage.on_train_start

    def started(self, trainer, pl_module):
        history.append({name: value.detach().clone() for name, value in pl_module.named_parameters()})
        start(self, trainer, pl_module)

    monkeypatch.setattr(WeightAverage, "on_train_batch_end", noted)
    monkeypatch.setattr(WeightAverage, "on_train_start", started)
    config = composed("model=legs", "train.ema=0.3", "train.test_last=true", "train.precision=64-true", "train.lr=0.05")
    data = datasets.load(config["dataset"])
    [folder] = run_trials(config, data, tmp_path)
    return config, data, folder, history


def test_checkpoints_hold_the_average_and_the_weights_and_everything_uses_the_average(averaged):
    config, data, folder, history = averaged
    assert len(history) == 13  # the initial weights, and those after 12 updates
    expected = dict(history[0])
    for n, weights in enumerate(history[1:]):
        decay = min(0.3, (1 + n) / (10 + n))
        expected = {name: decay * value + (1 - decay) * weights[name] for name, value in expected.items()}
    last = saved(folder, "last.ckpt")
    for name, value in expected.items():
        torch.testing.assert_close(last["state_dict"][name], value, rtol=1e-12, atol=1e-14)
        assert torch.equal(last[TRAINED][name], history[-1][name])
        assert not torch.equal(value, history[-1][name])
    record, rows = folder.read_record(), folder.read_metrics()
    for name, found in (("best.ckpt", record["result"]), ("last.ckpt", record["result_last"])):
        checkpoint = read_checkpoint(folder.checkpoints / name)
        module = restore(checkpoint, config["train"], data.spec)
        assert evaluate(module, data, config) == {key: value for key, value in found.items() if key.startswith("test/")}
        validated = evaluate(module, data, config, "validation")
        assert {key: rows[key][checkpoint.epoch] for key in validated} == validated
    loaded = seqmem.load(folder.path).state_dict()
    best = saved(folder, "best.ckpt")["state_dict"]
    assert all(torch.equal(value, best[f"model.{name}"]) for name, value in loaded.items())


def test_the_matrices_of_hippo_and_other_buffers_are_those_of_the_training(averaged, tmp_path):
    config, data, folder, _ = averaged
    plain = {**config, "train": {**config["train"], "ema": None}}
    [other] = run_trials(plain, data, tmp_path / "plain")
    one, two = (saved(each, "last.ckpt")["state_dict"] for each in (folder, other))
    buffers = one.keys() - saved(folder, "last.ckpt")[TRAINED].keys()
    assert all(torch.equal(one[name], two[name]) for name in buffers)
    # The training itself does not depend on its average.
    assert all(torch.equal(value, two[name]) for name, value in saved(folder, "last.ckpt")[TRAINED].items())
    losses = [each.read_metrics()["train/loss"].tolist() for each in (folder, other)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("method", ["exprnn", pytest.param("cayley", marks=pytest.mark.slow)])
def test_averages_of_orthogonal_weights_are_orthogonal(method, tmp_path):
    config = composed("model=exprnn", f"model.cell_args.method={method}", "train.ema=0.9", "train.lr=0.3")
    data = datasets.load(config["dataset"])
    [folder] = run_trials(config, data, tmp_path)
    model = seqmem.load(folder.path)
    [matrix] = [module for module in model.modules() if type(module).__name__.endswith("OrthogonalMatrix")]
    weight = matrix.weight.detach()
    torch.testing.assert_close(weight @ weight.T, torch.eye(len(weight)), atol=1e-5, rtol=0)


def test_weights_relative_to_a_moving_base_are_refused(tmp_path):
    config = composed("model=exprnn", "model.cell_args.method=dtriv", "train.ema=0.9")
    with pytest.raises(UserError, match=r"train.ema: got 0.9, expected null for exprnn.*, whose orthogonal weights of method"):
        run_trials(config, datasets.load(config["dataset"]), tmp_path)
    for value in (0, 1, 1.5):
        with pytest.raises(UserError, match=r"train.ema: got "):
            commandline.compose([*SMALL, "model=rnn", f"train.ema={value}"])


def test_untrained_weights_have_no_average(tmp_path):
    config = composed("model=rnn", "train.ema=0.9", "train.epochs=0")
    [folder] = run_trials(config, datasets.load(config["dataset"]), tmp_path)
    assert TRAINED not in saved(folder, "best.ckpt")
    assert folder.read_record()["epochs"] == 0
