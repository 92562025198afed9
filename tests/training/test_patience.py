"""Early stopping: when, what the record says, and that a resume changes nothing."""

import math

import pytest

from seqmem import datasets
from seqmem.cli import commandline
from seqmem.errors import UserError
from seqmem.results.record import digest
from seqmem.training.loop.best import Patience
from seqmem.training.loop.module import SequenceModule
from tests.training.test_resume import SMALL, composed, stop_at
from tests.trials import assert_same, run_trials

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

LATER = ["train.patience=3", "train.min_delta=0.5", "train.accumulate_grad_batches=2", "train.ema=0.9"]


@pytest.mark.parametrize(
    ("values", "best", "min_delta", "epochs"),
    [
        ([3.0, 2.0, 2.5, 2.0], "min", 0.0, 4),  # an equal value is not better
        ([3.0, 2.0, 2.5, 1.9], "min", 0.0, None),
        ([0.1, 0.3, 0.2, 0.25], "max", 0.0, 4),
        ([1.0, 0.95, 0.89, 0.85, 0.8], "min", 0.1, 5),  # compared with the best one, not with the one before
        ([1.0, 0.95, 0.91, 0.90, 0.5], "min", 0.1, 3),
        ([math.nan, math.inf, 5.0, math.nan, 6.0], "min", 0.0, 2),
        ([math.inf, 5.0, math.nan, 6.0], "min", 0.0, 4),
    ],
)
def test_it_stops_after_the_second_epoch_without_a_better_value(values, best, min_delta, epochs):
    patience = Patience(2, best, min_delta)
    stops = [number for number in range(1, len(values) + 1) if patience.reason(values[:number])]
    assert (stops[0] if stops else None) == epochs
    assert not Patience(None, best, min_delta).reason(values)


def test_the_reason_names_metric_value_and_epoch():
    assert Patience(2, "max").reason([0.5, 0.75, 0.7, 0.7], "val/accuracy") == (
        "no val/accuracy better than 0.75 of epoch 2 in 2 epochs"
    )
    assert Patience(1, "min", 0.25).reason([0.5, 0.4], "val/loss") == (
        "no val/loss better than 0.5 of epoch 1 by more than 0.25 in 1 epoch"
    )
    assert Patience(1, "min").reason([math.nan], "val/loss") == "no finite val/loss in 1 epoch"


@pytest.fixture
def worsening(monkeypatch):
    """Validation whose accuracy is that of a list, whatever the weights."""
    accuracies = [0.5, 0.7, 0.7, 0.6, 0.65, 0.9]
    log = SequenceModule.log

    def given(self, name, value, **options):
        if name == "val/accuracy":
            value, options = accuracies[self.current_epoch], {**options, "batch_size": 1}
        log(self, name, value, **options)

    monkeypatch.setattr(SequenceModule, "log", given)


@pytest.mark.usefixtures("worsening")
def test_a_trial_stops_and_is_finished_and_a_resume_anywhere_changes_nothing(tmp_path, capsys):
    config = composed("model=rnn", "train.epochs=6", "train.patience=3", "train.checkpoint_minutes=0", "train.test_last=true")
    data = datasets.load(config["dataset"])
    [whole] = run_trials(config, data, tmp_path / "whole")
    assert "validation accuracy 0.7000 at epoch 2 of 5 (stopped early), " in capsys.readouterr().out
    record = whole.read_record()
    assert (record["status"], record["epochs"], record["best_epoch"]) == ("finished", 5, 1)
    assert record["stopped_early"] == "no val/accuracy better than 0.7 of epoch 2 in 3 epochs"
    assert whole.read_metrics()["epoch"].tolist() == [0, 1, 2, 3, 4]
    # The third stop is within the last test: the training must not begin a sixth epoch.
    for method, at in (("training_step", 8), ("validation_step", 3), ("test_step", 3)):
        stop_at(method, at, config, data, tmp_path / "stopped")
    [stopped] = run_trials(config, data, tmp_path / "stopped")
    assert_same(whole, stopped)
    assert stopped.read_record()["stopped_early"] == record["stopped_early"]
    capsys.readouterr()
    run_trials(config, data, tmp_path / "stopped")
    assert "(stopped early)" in capsys.readouterr().out
    # With more patience, the trial goes on from where it stopped.
    longer = composed("model=rnn", "train.epochs=6", "train.patience=4", f"train.resume={whole.path}", "train.test_last=true")
    [resumed] = run_trials(longer, data, tmp_path / "longer")
    assert (resumed.read_record()["epochs"], resumed.read_record()["best_epoch"]) == (6, 5)
    assert resumed.read_record()["stopped_early"] is None
    # With less, it would have stopped before, at weights that are lost.
    resume = ("model=rnn", "train.epochs=6", "train.test_last=true", f"train.resume={resumed.path}")
    for patience, count in ((1, 3), (2, 4)):
        less = composed(*resume, f"train.patience={patience}")
        with pytest.raises(
            UserError,
            match=rf"train.resume: .* was trained for 6 epochs, but train.patience={patience} stops after epoch {count} \(no",
        ):
            run_trials(less, data, tmp_path / "less")
    coarse = composed(*resume, "train.patience=4", "train.min_delta=0.5")
    with pytest.raises(UserError, match=r"but train.patience=4 and train.min_delta=0.5 stops after epoch 5"):
        run_trials(coarse, data, tmp_path / "less")


@pytest.mark.usefixtures("worsening")
def test_a_trial_of_all_epochs_did_not_stop_early(tmp_path, capsys):
    """Its patience ends with the last epoch; nor did it after a stop within the last epoch's test."""
    config = composed("model=rnn", "train.epochs=3", "train.patience=1")
    data = datasets.load(config["dataset"])
    [whole] = run_trials(config, data, tmp_path / "whole")
    stop_at("test_step", 1, config, data, tmp_path / "stopped")
    [stopped] = run_trials(config, data, tmp_path / "stopped")
    assert "stopped early" not in capsys.readouterr().out
    assert [trial.read_record()["stopped_early"] for trial in (whole, stopped)] == [None, None]
    assert [trial.read_record()["epochs"] for trial in (whole, stopped)] == [3, 3]


def test_a_least_improvement_needs_patience():
    with pytest.raises(UserError, match=r"train.min_delta: got 0.5, expected 0, since train.patience is null"):
        commandline.compose([*SMALL, "model=rnn", "train.min_delta=0.5"])
    with pytest.raises(UserError, match=r"train.patience: got 0"):
        commandline.compose([*SMALL, "model=rnn", "train.patience=0"])


def test_keys_at_their_defaults_keep_the_checksum_of_earlier_trials():
    config = commandline.compose([*SMALL, "model=rnn"])
    names = [key.partition("=")[0].removeprefix("train.") for key in LATER]
    before = {**config, "train": {key: value for key, value in config["train"].items() if key not in names}}
    assert len(before["train"]) == len(config["train"]) - 4
    assert digest(before) == digest(config)
    checksums = {digest(commandline.compose([*SMALL, "model=rnn", "train.patience=5", key])) for key in LATER}
    assert len(checksums | {digest(config)}) == 5
