"""Signals to trials in processes of this machine, and the end of the command that started them."""

import json
import os
import re
import signal
from contextlib import nullcontext, suppress
from time import sleep

import pytest

from seqmem import training
from seqmem.errors import UserError
from seqmem.results import RunFolder
from seqmem.training.engines import worker
from seqmem.training.engines.choice import Choice
from seqmem.training.engines.worker import Trial
from seqmem.training.engines.workers import Workers
from seqmem.training.loop.module import SequenceModule
from tests.engines.commands import TINY, found, interrupted, run, start, statuses
from tests.engines.waiting import received_until, wait_until
from tests.training.test_trials import Signs, config
from tests.trials import run_trials

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")


@pytest.mark.parametrize("place", ["set_threads", "_sendable"])
@pytest.mark.usefixtures("forking")
def test_a_signal_before_and_after_a_trial_is_no_crash_of_its_process(place, tmp_path, monkeypatch, capfd):
    original = getattr(worker, place)

    def signalled(value):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(value)

    settings = config(runner={"ntrials": 2, "workers": 2}, smoke_test=True)
    with monkeypatch.context() as patch:
        patch.setattr(worker, place, signalled)
        stopped = place == "set_threads"
        expected = pytest.raises(UserError, match=r"seed 3 was stopped; the same command resumes") if stopped else nullcontext()
        with expected:
            run_trials(settings, Signs(), tmp_path)
    assert "Traceback" not in capfd.readouterr().err
    assert [trial.finished() is not None for trial in run_trials(settings, Signs(), tmp_path)] == [True, True]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_every_trial_saves_a_checkpoint_at_a_signal_and_resumes(number, status, tmp_path):
    """Sent to the whole group, as by a terminal; the third job does not begin."""
    command = ("-m", *TINY, "train.epochs=40", "model=lstm,gru,rnn")
    whole = tmp_path / "whole"
    whole.mkdir()
    assert run(*command, "runner.workers=1", cwd=whole).returncode == 0
    stopped = start(*command, "runner.workers=2", cwd=tmp_path)
    stderr = interrupted(stopped, number, lambda: len(list(tmp_path.glob("runs/*/seed_0/metrics.csv"))) == 2)
    assert stopped.returncode == status
    assert re.fullmatch(r"interrupted: saves a checkpoint first; .*\nerror: interrupted; the same command resumes\n", stderr)
    assert statuses(tmp_path) == ["interrupted", "interrupted"]
    resumed = run(*command, "runner.workers=2", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.count("resumed after") == 2
    assert found(tmp_path / "runs") == found(whole / "runs")


def test_trials_save_a_checkpoint_when_the_command_ends_by_an_error(tmp_path):
    settings = config(runner={"ntrials": 2}, train={"epochs": 500})
    experiment, outcomes = training.experiment(settings, Signs(), tmp_path), []
    with suppress(ZeroDivisionError), Workers(2) as pool:
        for seed in (3, 4):
            pool.submit(Trial(settings, Signs(), experiment, seed), Choice(2, 1), outcomes.append)
        received_until(pool, lambda: len(list(experiment.folder.glob("seed_*/metrics.csv"))) == 2)
        1 / 0  # noqa: B018
    assert not outcomes
    for seed in (3, 4):
        trial = RunFolder(experiment.folder / f"seed_{seed}")
        assert trial.read_record()["status"] == "interrupted"
        assert (trial.checkpoints / "last.ckpt").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("forking")
def test_a_signal_that_the_system_sends_to_all_is_not_passed_on_as_a_second_one(tmp_path, monkeypatch):
    """A second signal would end the step that runs, without a checkpoint after it."""
    original, begun, done = SequenceModule.training_step, tmp_path / "begun", tmp_path / "done"

    def training_step(self, batch, batch_idx):
        if batch_idx == 1:
            begun.touch()
            sleep(4)
            done.touch()
        return original(self, batch, batch_idx)

    monkeypatch.setattr(SequenceModule, "training_step", training_step)
    settings = config()
    experiment = training.experiment(settings, Signs(), tmp_path / "runs")
    with Workers(2) as pool:
        pool.submit(Trial(settings, Signs(), experiment, 3), Choice(2, 1), lambda outcome: None)
        received_until(pool, begun.exists)
        os.kill(pool._running[0].process.pid, signal.SIGTERM)
        sleep(1.5)  # signals within a second of the first one are never second ones
        pool._stop()
    assert done.exists()
    trial = RunFolder(experiment.folder / "seed_3")
    assert trial.read_record()["status"] == "interrupted"
    assert (trial.checkpoints / "last.ckpt").exists()


@pytest.mark.slow
def test_workers_end_with_their_parent(tmp_path):
    command = start(*TINY, "train.epochs=1000", "model=rnn", "runner.ntrials=2", "runner.workers=2", cwd=tmp_path)
    try:
        wait_until(lambda: len(list(tmp_path.glob("runs/*/seed_*/metrics.csv"))) == 2 or command.poll() is not None)
        processes = [json.loads(path.read_text())["process"] for path in tmp_path.glob("runs/*/seed_*/record.json")]
        assert len(processes) == 2
    finally:
        command.kill()
        command.communicate()
    wait_until(lambda: all(_state(process) in ("", "Z") for process in processes))


@pytest.mark.slow
def test_workers_stop_and_continue_with_their_parent(tmp_path):
    """Ctrl-Z and fg: the terminal signals the parent's group, of which the workers are not part."""
    command = start(*TINY, "train.epochs=1000", "model=rnn", "runner.ntrials=2", "runner.workers=2", cwd=tmp_path)
    files = []
    try:
        wait_until(lambda: len(list(tmp_path.glob("runs/*/seed_*/metrics.csv"))) == 2 or command.poll() is not None)
        files = sorted(tmp_path.glob("runs/*/seed_*/metrics.csv"))
        processes = [json.loads(path.with_name("record.json").read_text())["process"] for path in files]
        assert len(processes) == 2
        for _ in range(2):
            os.killpg(command.pid, signal.SIGTSTP)
            wait_until(lambda: [_state(process) for process in (command.pid, *processes)] == ["T"] * 3)
            before = [path.read_text() for path in files]
            sleep(1)
            assert [path.read_text() for path in files] == before
            os.killpg(command.pid, signal.SIGCONT)
            wait_until(lambda before=before: all(path.read_text() > text for path, text in zip(files, before, strict=True)))
        os.killpg(command.pid, signal.SIGINT)
        command.communicate(timeout=60)
        assert command.returncode == 130
        assert statuses(tmp_path) == ["interrupted"] * 2
    finally:
        command.kill()
        command.communicate()


def _state(process: int) -> str:
    """State of a process as the system names it; empty if it has ended."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return ""
