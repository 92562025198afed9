"""Sweeps that are killed, and the tables behind the papers'."""

import json
import random
import shlex
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

from seqmem.cli import commandline
from tests import program
from tests.data_files import require

ROOT = Path(__file__).parents[1]
TIMED = ["seconds", "sequences_per_second", "peak_memory_mib"]


def table(folder):
    [path] = folder.glob("runs/sweep_*/table.csv")
    return pd.read_csv(path).drop(columns=TIMED)


@pytest.mark.slow
def test_a_sweep_killed_twenty_times_gives_the_table_of_one_that_was_not(tmp_path):
    command = [
        "train.py",
        "-m",
        "dataset=digits",
        "model=rnn,lstm,legs",
        "model.preset=tiny",
        "runner.ntrials=2",
        "train.epochs=60",
    ]
    command += ["train.limit_train_batches=4", "train.limit_val_batches=2", "train.limit_test_batches=2"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    begun = time.monotonic()
    done = program.run(command, whole)
    lasted = time.monotonic() - begun
    assert done.returncode == 0, done.stderr
    chance = random.Random(0)
    finished, kills = {}, 0
    while kills < 20:
        try:
            program.run(command, killed, timeout=chance.uniform(0.05, 0.3) * lasted)
        except subprocess.TimeoutExpired:
            kills += 1
        else:  # all trials have finished: they begin anew
            killed.rename(tmp_path / f"finished_{len(list(tmp_path.glob('finished_*')))}")
            killed.mkdir()
            finished.clear()
        for path in killed.glob("runs/*/seed_*/record.json"):
            if json.loads(path.read_text())["status"] == "finished":
                finished.setdefault(path, path.stat().st_mtime_ns)
    done = program.run(command, killed)
    assert done.returncode == 0, done.stderr
    for folder in (killed, *tmp_path.glob("finished_*")):
        pd.testing.assert_frame_equal(table(whole), table(folder))
    assert all(path.stat().st_mtime_ns == before for path, before in finished.items())
    assert len(list(killed.glob("runs/*/seed_*/record.json"))) == 6
    for path in whole.glob("runs/*/seed_*/metrics.csv"):
        assert len(pd.read_csv(path)) == len(pd.read_csv(killed / path.relative_to(whole))) == 60


def commands():
    listed = subprocess.run(
        ["make", "--dry-run", "TABLE_FLAGS=scale=smoke", *TABLES], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout
    return [line for line in listed.splitlines() if "train.py -m experiment=" in line]


TABLES = ["table-hippo-1", "table-hippo-2", "table-hippo-3", "table-hmlstm", "table-igloo"]


def test_every_experiment_is_a_row_of_a_table():
    rows = [name for command in commands() for name in command.split("experiment=")[1].split()[0].split(",")]
    files = {str(path.relative_to(ROOT / "cfg/experiment").with_suffix("")) for path in ROOT.glob("cfg/experiment/*/*.yaml")}
    assert set(rows) | {"igloo/copy_memory"} == files
    assert len(rows) == len(set(rows))


def test_a_table_scaled_down_is_tiny():
    config = commandline.compose(["experiment=igloo/copy_memory_table", "model=gru", "dataset.length=100", "scale=smoke"])
    assert config["smoke_test"]
    assert config["train"]["batch_size"] == 4
    assert config["runner"]["ntrials"] == 1
    assert config["model"]["cell_args"]["hidden_size"] < 20


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(TABLES)), ids=TABLES)
def test_a_table_scaled_down_runs_to_its_end(number, tmp_path):
    _, *command = shlex.split(commands()[number])
    experiments = command[-2].removeprefix("experiment=").split(",")
    for name in {commandline.compose([f"experiment={name}", "scale=smoke"])["dataset"]["name"] for name in experiments}:
        require(name)
    done = program.run(command, tmp_path, timeout=1200)
    assert done.returncode == 0, done.stderr
    [path] = tmp_path.glob("runs/sweep_*/table.csv")
    rows = pd.read_csv(path)
    assert len(rows) >= len(experiments)
    assert (rows["n"] == 1).all()
