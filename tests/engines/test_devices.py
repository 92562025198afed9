"""``runner.devices=2`` on the CPU: two processes share the rows of every batch."""

import json
import os
import signal
import time

import pandas as pd
import pytest
import torch
import torch.distributed

from seqmem.training.engines.ranks import in_ranks
from tests import program
from tests.engines.commands import TINY, first_metrics, found, interrupted, run, start

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Of the same trial on one device and on two, with a last batch of a single row in every split."""
    job = (*TINY[:3], "model=lstm", "train.batch_size=24", "train.lr=0.01", "train.test_last=true")
    job = (*job, "runner.accelerator=cpu", "train.precision=64-true")  # rounding grows from step to step
    trials = []
    for devices in (1, 2):
        folder = tmp_path_factory.mktemp(f"devices_{devices}")
        done = run(*job, f"runner.devices={devices}", cwd=folder, threads=2)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert done.stdout.count("trial 1 of 1") == 1
        [trial] = (folder / "runs").glob("digits_lstm_*/seed_0")
        trials.append(trial)
    return trials


def test_two_devices_train_as_one(folders):
    one, two = (pd.read_csv(folder / "metrics.csv").set_index("epoch") for folder in folders)
    assert list(one.columns) == list(two.columns)
    assert (one["step"] == two["step"]).all()
    for name in [column for column in one.columns if "/" in column]:
        assert two[name].tolist() == pytest.approx(one[name].tolist(), rel=1e-6), name


def test_the_result_is_that_of_all_rows(folders):
    one, two = (json.loads((folder / "record.json").read_text()) for folder in folders)
    assert two["status"] == "finished"
    for kind in ("result", "result_last"):
        assert two[kind] == pytest.approx(one[kind], rel=1e-6)
    assert two["parameters"] == one["parameters"]
    one, two = (torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for folder in folders)
    for name, weights in one.items():
        assert torch.allclose(weights, two[name], rtol=1e-6), name


def test_it_is_refused_where_it_cannot_be(tmp_path):
    done = program.run(["train.py", "-m", *TINY, "model=lstm,rnn", "runner.devices=2"], tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: runner.devices: got 2 with -m, expected 1")
    (tmp_path / "book.txt").write_text("it was the best of times " * 400)
    text = ("dataset=text", "dataset.path=book.txt", "model=lstm", "model.preset=tiny")
    done = program.run(["train.py", *text, "runner.devices=2"], tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: runner.devices: got 2, expected 1 on ")


def test_a_failure_ends_every_process_in_one_line(tmp_path):
    diverging = ("model=rnn", "model.cell_args.hidden_activation=relu", "train.optimizer=sgd", "train.lr=1e30")
    done = run(*TINY[:4], *diverging, "runner.devices=2", "runner.accelerator=cpu", cwd=tmp_path)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("error: the training loss became")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_a_checkpoint_within_the_epoch_of_all_processes(number, tmp_path):
    """The interrupted trial ends as one that was not; a SIGTERM reaches the whole group, as timeout(1) sends it."""
    job = (*TINY[:2], "train.epochs=4", *TINY[3:5], "model=lstm", "runner.devices=2", "runner.accelerator=cpu")
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    assert run(*job, cwd=tmp_path / "whole", threads=2).returncode == 0
    command = start(*job, cwd=tmp_path / "stopped", threads=2)
    metrics = first_metrics(command, tmp_path / "stopped")
    stderr = interrupted(command, number, metrics.exists)
    assert command.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert stderr.endswith("error: interrupted; the same command resumes\n")
    done = run(*job, cwd=tmp_path / "stopped", threads=2)
    assert done.returncode == 0, done.stderr
    assert "resumed after" in done.stdout
    assert found(tmp_path / "stopped") == found(tmp_path / "whole")


def test_no_process_outlives_a_killed_command(tmp_path):
    job = ("dataset=digits", "model=lstm", "train.epochs=5000", "runner.devices=2", "runner.accelerator=cpu")
    command = start(*job, cwd=tmp_path)
    metrics = first_metrics(command, tmp_path)
    command.kill()
    command.communicate()  # returns when the last process that has its streams has ended
    before = metrics.read_text()
    time.sleep(5)
    assert metrics.read_text() == before


def test_the_first_process_answers_and_a_lost_one_is_noticed():
    assert in_ranks(2, rank_and_threads) == ("0", "2")
    with pytest.raises(RuntimeError, match="process of device 1 ended with status 7"):
        in_ranks(2, dies, 1)


def rank_and_threads():
    return os.environ["LOCAL_RANK"], os.environ["WORLD_SIZE"]


def dies(rank):
    if os.environ["LOCAL_RANK"] == str(rank):
        os._exit(7)
    time.sleep(60)
