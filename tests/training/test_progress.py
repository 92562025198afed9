"""Lines and the bar of a training."""

import re
import sys

import pytest

from seqmem import datasets, training
from seqmem.cli import commandline
from seqmem.training.loop.progress import TimeLeft, duration
from tests.trials import run_trials

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

KEYS = ["dataset=digits", "model=rnn", "model.preset=tiny", "train.epochs=2", "runner.accelerator=cpu"]
KEYS += [f"train.limit_{split}_batches=2" for split in ("train", "val", "test")]


def test_without_a_terminal_a_line_says_what_starts_and_one_follows_each_epoch(tmp_path, capsys):
    config = commandline.compose([*KEYS, "runner.ntrials=2"])
    data = datasets.load(config["dataset"])
    experiment = training.experiment(config, data, tmp_path)
    training.run_trials(config, data, experiment)
    lines = capsys.readouterr().out.splitlines()
    number = r"\d[\d.,]*"
    for seed, (start, first, second, end) in enumerate((lines[:4], lines[4:])):
        title = f"rnn on digits, seed {seed}: "
        assert re.fullmatch(
            rf"{title}{number} parameters, cpu \({number} threads?\), 2 epochs of 2 batches; in {experiment.trial(seed).path}",
            start,
        )
        for epoch, line in enumerate((first, second), start=1):
            left = "" if epoch == 2 else rf"; {number} s left"
            measured = rf"validation accuracy {number}( \(best {number} at epoch 1\))?, training loss {number}"
            assert re.fullmatch(rf"{title}epoch {epoch} of 2: {measured}, {number} s{left}", line), line
        assert end.startswith(f"rnn on digits, trial {seed + 1} of 2 (seed {seed}): ")


def test_a_terminal_has_a_bar_with_the_time_left(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    config = commandline.compose(KEYS)
    run_trials(config, datasets.load(config["dataset"]), tmp_path)
    out = capsys.readouterr().out
    assert "2 epochs of 2 batches" in out
    assert "seed 0: epoch 1 of 2" not in out
    assert re.search(r"left: \d", out)
    assert "Epoch 2 of 2" in out
    assert "Epoch 0" not in out


def test_the_time_left_follows_from_the_speed_so_far(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    left = TimeLeft(10)
    left.start(2.5)
    assert left.words(2.5) == "unknown time"
    now[0] += 60
    assert left.words(3.0) == "14 min 0 s"
    assert left.words(10) == "0.0 s"


def test_durations_have_two_units():
    assert [duration(seconds) for seconds in (0.25, 59, 59.7, 150, 7260, 180_000)] == [
        "0.2 s",
        "59 s",
        "1 min 0 s",
        "2 min 30 s",
        "2 h 1 min",
        "2 d 2 h",
    ]
