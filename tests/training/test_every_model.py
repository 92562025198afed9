"""Every model trains, gives the same numbers twice, and ends the same after kills."""

import random
import subprocess
import time
from contextlib import suppress

import numpy as np
import pytest

from seqmem import datasets
from seqmem.cli import commandline
from seqmem.results import RunFolder
from tests import program
from tests.cli.choices import choices, model_settings
from tests.datasets.conftest import write_ts
from tests.trials import assert_same, run_trials

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

MODELS = sorted({*choices("model")} - {"function_approximation"})  # which is not trained
TWICE = ["igloo", "lstm"]
NETWORKS = {model_settings(model)["network"]: model for model in MODELS}
FEW = [f"dataset.{split}_samples=16" for split in ("train", "validation", "test")]
OTHER_DATA = {
    "conv_lstm_ae": ["dataset=moving_digits", "dataset.length=5", "dataset.size=12", *FEW],
    "linear_ae": ["dataset=white_noise", "dataset.length=20", "dataset.frequency=5", *FEW],
    "lstm_ae": ["dataset=sinusoids", "dataset.length=12", "dataset.reconstruction=true", *FEW],
    "seq2seq_ae": ["dataset=phase_signals", *FEW],
}
TIMED = ["tlsi", "tlti"]


@pytest.fixture(scope="session")
def strokes(tmp_path_factory):
    """A data folder with CharacterTrajectories of noise: 60 series of 4 to 11 steps."""
    folder, noise = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for part in ("TRAIN", "TEST"):
        cases = [(noise.normal(size=(3, 11 if k < 3 else noise.integers(4, 12))), f"{k % 3 + 1}") for k in range(30)]
        write_ts(folder, "CharacterTrajectories", part, cases)
    return folder


def overrides(model, strokes, epochs, output_dir):
    given = OTHER_DATA.get(model) or ["dataset=ct", f"dataset.data_dir={strokes}", "dataset.padding=mask"]
    given = [*given, "dataset.timestamp=true"] if model in TIMED else given
    small = ["train.batch_size=4", "train.limit_train_batches=3", "train.limit_val_batches=1", "train.limit_test_batches=1"]
    return [*given, f"model={model}", "model.preset=tiny", f"train.epochs={epochs}", *small, f"output_dir={output_dir}"]


@pytest.mark.parametrize("model", [model for model in NETWORKS.values() if model not in TWICE])
def test_each_network_trains(model, strokes, tmp_path):
    config = commandline.compose([*overrides(model, strokes, 1, tmp_path), "smoke_test=true"])
    [folder] = run_trials(config, datasets.load(config["dataset"]), tmp_path)
    assert folder.read_record()["status"] == "finished"


@pytest.mark.parametrize("model", [*TWICE, *(pytest.param(m, marks=pytest.mark.slow) for m in MODELS if m not in TWICE)])
def test_the_same_command_gives_the_same_numbers(model, strokes, tmp_path):
    config = commandline.compose(overrides(model, strokes, 1, tmp_path))
    data = datasets.load(config["dataset"])
    [first] = run_trials(config, data, tmp_path / "first")
    [second] = run_trials(config, data, tmp_path / "second")
    assert_same(first, second)


def after_checkpoints(folder, count, delay):
    """Return a function that is true some seconds after a trial in ``folder`` has written its checkpoint ``count`` times."""
    seen, due = set(), []

    def is_time():
        for path in folder.glob("*/seed_0/checkpoints/last.ckpt"):
            with suppress(FileNotFoundError):
                seen.add(path.stat().st_mtime_ns)
        if len(seen) > count and not due:
            due.append(time.monotonic() + delay)
        return bool(due) and time.monotonic() >= due[0]

    return is_time


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_a_trial_killed_at_random_moments_ends_as_one_that_was_not(model, strokes, tmp_path):
    """Four kills of each model with a checkpoint after every batch, more than a hundred over all of them."""
    keys = ["train.checkpoint_minutes=0", "train.test_last=true"]
    folders = {name: tmp_path / name for name in ("whole", "killed")}
    commands = {name: ["train.py", *overrides(model, strokes, 12, folder), *keys] for name, folder in folders.items()}
    done = program.run(commands["whole"], tmp_path)
    assert done.returncode == 0, done.stderr
    chance, kills, starts = random.Random(model), 0, 0
    while kills < 4:
        starts += 1
        until = after_checkpoints(folders["killed"], chance.randrange(12), chance.uniform(0, 0.03))
        try:
            program.run(commands["killed"], tmp_path, until=until)
        except subprocess.TimeoutExpired:
            kills += 1
        else:  # it ended before the kill, so a different trial is killed
            assert starts < 20, "no kill comes before the end"
            folders["killed"].rename(tmp_path / f"ended_{starts}")
    done = program.run(commands["killed"], tmp_path)
    assert done.returncode == 0, done.stderr
    ended = [*tmp_path.glob("ended_*/*/seed_0"), *folders["killed"].glob("*/seed_0")]
    assert any(RunFolder(path).read_record()["resumed_at"] for path in ended), "no kill came within the training"
    [whole] = folders["whole"].glob("*/seed_0")
    for path in ended:
        assert_same(RunFolder(whole), RunFolder(path))
        assert len(RunFolder(path).read_metrics()) == 12
