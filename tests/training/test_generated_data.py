"""Generated data sets in training: every kind of model, resuming within an epoch, and evaluation at another length."""

import signal

import numpy as np
import pandas as pd
import pytest
import torch

from seqmem import datasets
from seqmem.cli import commandline
from seqmem.data import IGNORE_INDEX
from seqmem.data.places import at_counted_steps
from seqmem.results import RunFolder
from seqmem.tasks import task_for
from seqmem.training.checkpoints.files import read_checkpoint, restore
from seqmem.training.evaluation.measure import evaluate
from seqmem.training.evaluation.predictions import Predictions, class_counts
from seqmem.training.loop.module import SequenceModule
from tests import program
from tests.training.test_resume import signalled
from tests.trials import assert_same, run_trials

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

TASKS = {
    "selective_copying": ["dataset.length=20", "dataset.tokens=3"],
    "induction": ["dataset.length=12"],
    "mqar": ["dataset.length=16", "dataset.pairs=2"],
}
FEW = ["dataset.train_samples=26", "dataset.validation_samples=9", "dataset.test_samples=9", "train.batch_size=8"]
MODELS = ["lstm", "legs", "mamba", "tcn", "igloo", "hmlstm"]


def composed(task, *keys):
    return commandline.compose([f"dataset={task}", *TASKS[task], *FEW, "model.preset=tiny", "train.epochs=1", *keys])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("model", [*(pytest.param(name, marks=pytest.mark.slow) for name in MODELS[2:]), *MODELS[:2]])
def test_each_kind_of_model_trains_on_each_task(task, model, tmp_path):
    config = composed(task, f"model={model}", "train.limit_train_batches=2")
    [folder] = run_trials(config, datasets.load(config["dataset"]), tmp_path)
    result = folder.read_record()["result"]
    assert 0 <= result["test/accuracy"] <= 1
    assert result["test/loss"] > 0


@pytest.mark.parametrize(("task", "workers"), [("induction", 0), pytest.param("mqar", 2, marks=pytest.mark.slow)])
def test_a_trial_that_gets_sigterm_within_an_epoch_resumes_with_the_same_sequences(task, workers, tmp_path, monkeypatch):
    """It comes in the second of four batches of the second epoch, after which a checkpoint is saved."""
    config = composed(task, "model=mamba", "train.epochs=3", f"dataset.num_workers={workers}")
    data = datasets.load(config["dataset"])
    [whole] = run_trials(config, data, tmp_path / "whole")
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command does, which ends with an exception
    try:
        with monkeypatch.context() as patch:
            patch.setattr(SequenceModule, "training_step", signalled("training_step", 6, signal.SIGTERM))
            with pytest.raises(KeyboardInterrupt):
                run_trials(config, data, tmp_path / "stopped")
    finally:
        signal.signal(signal.SIGTERM, before)
    [resumed] = run_trials(config, data, tmp_path / "stopped")
    assert_same(whole, resumed)
    assert resumed.read_record()["resumed_at"] == [6]


@pytest.mark.slow
def test_a_command_that_gets_sigterm_within_an_epoch_ends_as_one_that_does_not(tmp_path):
    keys = ["dataset=induction", *TASKS["induction"], *FEW, "dataset.train_samples=320", "model=mamba", "model.preset=tiny"]
    command = ["train.py", *keys, "train.epochs=2", "train.checkpoint_minutes=0"]

    def has_checkpoint(process):
        return any((tmp_path / "stopped").glob("*/seed_0/checkpoints/last.ckpt"))

    stopped = [*command, f"output_dir={tmp_path / 'stopped'}"]
    first = program.run(stopped, program.ROOT, interrupt=(has_checkpoint, signal.SIGTERM))
    assert first.returncode == 143, first.stderr
    again = program.run(stopped, program.ROOT)
    assert again.returncode == 0, again.stderr
    config = commandline.compose(command[1:])
    [whole] = run_trials(config, datasets.load(config["dataset"]), tmp_path / "whole")
    [path] = (tmp_path / "stopped").glob("*/seed_0")
    assert_same(whole, RunFolder(path))
    [updates] = RunFolder(path).read_record()["resumed_at"]
    assert 0 < updates < 40  # of 80


@pytest.mark.parametrize("task", TASKS)
def test_a_trained_model_is_evaluated_at_another_length(task, tmp_path):
    config = composed(task, "model=mamba")
    [folder] = run_trials(config, datasets.load(config["dataset"]), tmp_path)
    checkpoint = read_checkpoint(folder.path)
    arguments = datasets.at_length(config["dataset"], 4096)
    data = datasets.load({**arguments, "test_samples": 3})
    measured = evaluate(restore(checkpoint, config["train"], data.spec), data, config)
    assert 0 <= measured["test/accuracy"] <= 1
    again = datasets.load(datasets.at_length(config["dataset"], config["dataset"]["length"]))
    same = evaluate(restore(checkpoint, config["train"], again.spec), again, config)
    assert same["test/accuracy"] == folder.read_record()["result"]["test/accuracy"]


def test_predictions_of_sparse_targets_name_their_steps(tmp_path):
    """With 8,192 classes, the probability is that of the target."""
    data = datasets.load({"name": "mqar", "length": 16, "pairs": 2, "test_samples": 5})
    batch = data.batch("test", torch.arange(5))
    predictions = Predictions(task_for(data.spec))
    outputs = torch.zeros(5, 2, 8192)
    outputs[0, 1, at_counted_steps(batch).targets[0, 1]] = 50
    predictions.observe(at_counted_steps(batch), {"outputs": outputs})
    predictions.write(tmp_path / "predictions.csv")
    table = pd.read_csv(tmp_path / "predictions.csv")
    assert list(table) == ["row", "length", "step", "target", "prediction", "probability"]
    steps = (batch.targets != IGNORE_INDEX).nonzero()
    assert table[["row", "step"]].to_numpy().tolist() == steps.tolist()
    assert table["target"].tolist() == batch.targets[steps[:, 0], steps[:, 1]].tolist()
    assert table["probability"].tolist() == pytest.approx([1 / 8192, 1, *[1 / 8192] * 8])
    predictions.write(tmp_path / "predictions.npz")
    with np.load(tmp_path / "predictions.npz") as arrays:
        assert arrays["step"].flatten().tolist() == steps[:, 1].tolist()
        assert arrays["probability"].shape == (5, 2)
    assert class_counts(task_for(data.spec)) is None
