"""Batch norm's running statistics fit the current weights, also in a short training."""

import pytest

from seqmem import datasets
from seqmem.cli import commandline
from tests.trials import run_trials

SMALL = ["model.preset=tiny", "model.model_size=32", "model.mixer_args.state_size=32", "runner.accelerator=cpu"]


@pytest.mark.slow
def test_a_short_training_evaluates_as_it_trains(tmp_path):
    """With LRU's weight of 0.01 from the start, the initial statistics would leave the accuracy of validation at 0.1."""
    train = ["train.epochs=3", "train.lr=0.003", "train.batch_size=32"]
    config = commandline.compose(["dataset=digits", "model=lru", *SMALL, *train])
    [trial] = run_trials(config, datasets.load(config["dataset"]), tmp_path)
    metrics = trial.read_metrics()
    assert metrics["train/accuracy"].iloc[-1] > 0.3
    assert (metrics["val/accuracy"] > metrics["train/accuracy"]).all()
