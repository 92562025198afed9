"""Every generated test of memory trains with models of several kinds."""

import math

import pytest

from seqmem import datasets
from seqmem.cli import commandline
from tests.trials import run_trials

FEW = ["train_samples=24", "validation_samples=4", "test_samples=4"]
TASKS = {
    "parity": ["length=7", "test_length=9"],
    "even_pairs": ["length=7", "test_length=9"],
    "cycle_navigation": ["length=7", "test_length=9"],
    "modular_arithmetic": ["length=7", "test_length=9"],
    "group_words": ["length=6"],
    "flip_flop": ["length=12"],
}
MODELS = ("lstm", "s4d", "mamba", "legs")
QUICK = {("lstm", "parity"), ("s4d", "group_words"), ("legs", "flip_flop")}
"""Models and tasks that the tests without slow ones train."""


@pytest.mark.parametrize(
    ("model", "task"),
    [pytest.param(model, task, marks=[] if (model, task) in QUICK else pytest.mark.slow) for model in MODELS for task in TASKS],
)
def test_every_kind_of_model_trains_on_every_task(model, task, tmp_path):
    keys = [f"dataset.{key}" for key in (*FEW, *TASKS[task])]
    settings = ["train.batch_size=8", "train.epochs=1", "runner.accelerator=cpu", "model.preset=tiny"]
    config = commandline.compose([f"dataset={task}", f"model={model}", *keys, *settings])
    [trial] = run_trials(config, datasets.load(config["dataset"]), tmp_path)
    record = trial.read_record()
    names = {"loss", "accuracy"} | ({"sequence_accuracy"} if task in ("group_words", "flip_flop") else set())
    assert {name for name in record["result"] if name.startswith("test/")} == {f"test/{name}" for name in names}
    assert all(math.isfinite(value) for value in record["result"].values())
    assert record["metric"] == "accuracy"
