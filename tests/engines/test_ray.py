"""``runner=ray``: the trials of a job over the workers of a local Ray cluster."""

import json
import os
import signal

import pytest

from tests.engines.commands import TINY, first_metrics, found, interrupted, require, run, start, statuses

require("ray", "ray")
pytestmark = pytest.mark.cluster


def test_two_workers_give_the_numbers_of_the_sequential_sweep(sequential, tmp_path):
    done = run("-m", "runner=ray", "runner.workers=2", *TINY, "model=lstm,rnn", "runner.ntrials=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert found(tmp_path / "runs") == sequential
    records = [json.loads(path.read_text()) for path in (tmp_path / "runs").rglob("record.json")]
    assert len({record["process"] for record in records if record["model"] == "lstm"}) == 2
    assert {record["command"][1] for record in records} == {"-m"}


def test_finished_trials_are_found_and_failed_ones_named(tmp_path):
    job = ("runner=ray", *TINY[:4], *TINY[5:], "model=rnn", "model.cell_args.hidden_activation=relu", "train.optimizer=sgd")
    done = run(*job, "train.lr=1e30", "runner.ntrials=2", cwd=tmp_path)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("error: the training loss became")
    assert statuses(tmp_path) == ["failed", "failed"]
    done = run(*job, "train.lr=0.01", "runner.ntrials=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run(*job, "train.lr=0.01", "runner.ntrials=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("; found in ") == 1
    assert done.stdout.count("; in ") == 1


def test_more_than_the_cluster_has_is_refused(tmp_path):
    done = run("runner=ray", *TINY, "model=rnn", "runner.gpus=64", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: runner.cpus, runner.gpus: got 1 and 64 for a trial")


def test_a_trial_whose_worker_is_killed_goes_on_in_another(tmp_path):
    command = start("runner=ray", *TINY[:2], *TINY[3:], "train.epochs=60", "model=rnn", cwd=tmp_path)
    path = first_metrics(command, tmp_path).with_name("record.json")
    first = json.loads(path.read_text())["process"]
    os.kill(first, signal.SIGKILL)
    _, stderr = command.communicate(timeout=600)
    assert command.returncode == 0, stderr
    record = json.loads(path.read_text())
    assert record["status"] == "finished"
    assert record["process"] != first
    assert record["resumed_at"]
    assert record["epochs"] == 60


def test_every_worker_saves_a_checkpoint_before_ctrl_c_ends_the_command(tmp_path):
    """The third trial does not begin."""
    job = (*TINY, "train.epochs=1000", "model=lstm", "runner=ray", "runner.workers=2", "runner.ntrials=3")
    command = start(*job, cwd=tmp_path)
    stderr = interrupted(command, signal.SIGINT, lambda: len(list(tmp_path.glob("runs/*/seed_*/metrics.csv"))) == 2)
    assert command.returncode == 130
    assert stderr.endswith("error: interrupted; the same command resumes\n")
    assert statuses(tmp_path) == ["interrupted", "interrupted"]
    assert len(list(tmp_path.glob("runs/*/seed_*/checkpoints/last.ckpt"))) == 2
