"""Trials at a time in processes of this machine: the numbers, failures, kills and interrupts of one after the other."""

import json
import multiprocessing
import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from threading import Timer
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from seqmem import datasets, training
from seqmem.cli import commandline
from seqmem.errors import UserError
from seqmem.io.machine import usable_cores
from seqmem.results import RunFolder, find_runs, group_trials, summarize
from seqmem.training.engines import choice, trials, worker, workers
from seqmem.training.engines.choice import Choice, DeviceMemory
from seqmem.training.engines.worker import Trial
from seqmem.training.engines.workers import Workers
from seqmem.training.loop import threads
from seqmem.training.loop.module import SequenceModule
from tests.engines.commands import ROOT, TINY, found, run, statuses
from tests.training.test_trials import Signs, config
from tests.trials import assert_same, run_trials

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")


@pytest.mark.usefixtures("forking")
def test_three_at_a_time_give_the_numbers_of_one_after_the_other_with_one_thread(tmp_path, capsys, monkeypatch):
    """One trial fails and one is killed: the others go on, and a second call trains the two that are missing."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = run_trials(config(runner={"ntrials": 3, "workers": 1}), Signs(), tmp_path / "alone")
    finally:
        torch.set_num_threads(threads)
    original, faults = SequenceModule.training_step, {4: lambda: 1 / 0, 5: lambda: os.kill(os.getpid(), signal.SIGKILL)}

    def training_step(self, batch, batch_idx):
        if multiprocessing.parent_process() and self.trainer.current_epoch:
            faults.get(self.hparams["config"]["seed"], lambda: None)()
        return original(self, batch, batch_idx)

    together = config(runner={"ntrials": 3, "workers": 3})
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(SequenceModule, "training_step", training_step)
        with pytest.raises(ZeroDivisionError) as caught:
            run_trials(together, Signs(), tmp_path / "together")
    assert "training_step" in caught.value.__notes__[0]
    lines = capsys.readouterr().out.splitlines()
    assert all(re.match(r"legs on signs, (seed|trial)", line) for line in lines), lines
    assert sorted(int(number[1]) for line in lines if (number := re.search(r"trial (\d) of 3", line))) == [1]
    [folder] = (tmp_path / "together").iterdir()
    ended = [RunFolder(folder / f"seed_{seed}").read_record() for seed in range(3, 6)]
    assert [record["status"] for record in ended] == ["finished", "failed", "failed"]
    assert "the process of seed 5 was killed by SIGKILL" in ended[2]["reason"]
    again = run_trials(together, Signs(), tmp_path / "together")
    for one, other in zip(alone, again, strict=True):
        if other.path.name not in ("seed_4", "seed_5"):  # these say that they resumed
            assert_same(one, other)
        assert one.read_record()["result"] == other.read_record()["result"]
    records = [trial.read_record() for trial in again]
    assert {(record["machine"]["threads"], record["machine"]["workers"]) for record in records} == {(1, 3)}
    assert len({record["process"] for record in records}) == 3
    assert capsys.readouterr().out.count("found in") == 1
    both = summarize(group_trials([*find_runs(tmp_path / "alone"), *find_runs(tmp_path / "together")]))
    assert both["timed"][0] == 3  # seconds of one after the other are not averaged with those of three at a time


def test_a_trial_alone_has_no_others_beside_it(tmp_path):
    [trial] = run_trials(config(runner={"workers": 3}, smoke_test=True), Signs(), tmp_path)
    assert "workers" not in trial.read_record()["machine"]


def test_the_memory_of_a_gpu_is_measured_by_a_short_silent_trial(tmp_path, monkeypatch):
    measured = []

    def device_memory(self, trial):
        measured.append(trial)
        return DeviceMemory(free=80_000, peak=20_000, host=4_000)

    monkeypatch.setattr(Workers, "device_memory", device_memory)
    monkeypatch.setattr(choice, "device_kind", lambda runner: "cuda")
    monkeypatch.setattr(choice.Machine, "here", classmethod(lambda cls: cls(16, 1e6)))
    settings = config(runner={"ntrials": 5, "tensorboard": True})
    experiment, pool = training.experiment(settings, Signs(), tmp_path), Workers(5)
    chosen = [trials._choice(settings, Signs(), experiment, pool) for _ in range(2)]
    assert chosen == [Choice(3, 5)] * 2
    [trial] = measured
    assert (trial.silent, trial.config["smoke_test"], trial.config["runner"]["tensorboard"]) == (True, True, False)
    assert trial.experiment == replace(experiment, folder=trial.experiment.folder)
    assert not trial.experiment.folder.exists()


def test_a_trial_that_cannot_start_in_a_process_has_no_memory(tmp_path, capsys, monkeypatch):
    """Then trials run one after the other, as before there were processes."""
    settings = config(runner={"ntrials": 2})
    experiment, data = training.experiment(settings, Signs(), tmp_path), Signs()
    data.cannot_be_pickled = lambda: None
    monkeypatch.setattr(workers, "start_method", lambda threads: "forkserver")
    with Workers(2) as pool:
        assert pool.device_memory(Trial(settings, data, experiment, 3, silent=True)) is None
    assert re.match(r"trials run one after the other: no process could start \(\w+Error: ", capsys.readouterr().err)


THREADS_OF_AUTOGRAD = """
import torch

class Nested(torch.autograd.Function):  # more than 60 backward passes within each other take further threads
    @staticmethod
    def forward(ctx, value, depth):
        ctx.depth = depth
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        if ctx.depth:
            with torch.enable_grad():
                Nested.apply(torch.ones(1, requires_grad=True), ctx.depth - 1).sum().backward()
        return gradient, None

Nested.apply(torch.ones(1, requires_grad=True), 70).sum().backward()
"""


@pytest.mark.slow
def test_trials_do_not_start_by_a_fork_where_autograd_has_threads(tmp_path):
    """Of a program that has computed gradients before it trains, for example."""
    assert workers.start_method(1) == ("fork" if sys.platform == "linux" else "forkserver")
    train = f"import seqmem; seqmem.train({' '.join([*TINY, 'runner.ntrials=2', 'runner.workers=2'])!r})"
    (tmp_path / "program.py").write_text(f"{THREADS_OF_AUTOGRAD}\nif __name__ == '__main__':\n    {train}\n")
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert len(find_runs(tmp_path)) == 2


def test_trials_whose_data_cannot_be_sent_run_one_after_the_other(tmp_path, capsys, monkeypatch):
    """As on a GPU, where an explicit runner.workers asks for processes of a server."""
    data = Signs()
    data.cannot_be_pickled = lambda: None
    monkeypatch.setattr(workers, "start_method", lambda threads: "forkserver")
    trained = run_trials(config(runner={"ntrials": 3, "workers": 3}, smoke_test=True), data, tmp_path)
    assert [trial.read_record()["status"] for trial in trained] == ["finished"] * 3
    assert "workers" not in trained[0].read_record()["machine"]
    captured = capsys.readouterr()
    assert re.fullmatch(r"trials run one after the other: no process could start \(\w+Error: .*\)\n", captured.err)
    assert re.findall(r"trial (\d) of 3", captured.out) == ["1", "2", "3"]


def test_an_error_of_one_job_is_not_raised_within_another(tmp_path):
    """For example, the first job's failure cannot be written, and the end of its trial is seen as the second job begins."""
    settings = config(runner={"ntrials": 1}, smoke_test=True)
    experiment = training.experiment(settings, Signs(), tmp_path)
    outcomes = []

    def cannot_write(outcome):
        raise UserError(f"cannot write the manifest of seed {outcome.seed}")

    def two_jobs():
        with Workers(2) as pool:
            for seed, then in ((3, cannot_write), (4, outcomes.append)):
                try:
                    pool.submit(Trial(settings, Signs(), experiment, seed), Choice(1, 1), then)
                    pool.finish()
                except UserError as error:
                    pytest.fail(f"raised within the job of seed {seed}: {error}")

    with pytest.raises(UserError, match="manifest of seed 3"):
        two_jobs()
    assert [outcome.seed for outcome in outcomes] == [4]
    assert outcomes[0].record["status"] == "finished"


@pytest.mark.slow
@pytest.mark.usefixtures("forking")
def test_a_stopped_trial_resumes_with_the_threads_with_which_it_began(tmp_path, monkeypatch, capsys):
    """Trained by two threads; then the command asks for several trials, each in a process of one thread."""
    monkeypatch.setattr(threads, "are_given", lambda: False)
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    settings, stop = config(runner={"ntrials": 2, "workers": 2}, train={"epochs": 2}), SequenceModule.on_train_epoch_start

    def stopping(self):
        if self.trainer.current_epoch == 1 and self.hparams["config"]["seed"] == 4:
            raise ZeroDivisionError
        stop(self)

    experiment, before = training.experiment(settings, Signs(), tmp_path), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(SequenceModule, "on_train_epoch_start", stopping)
            alone = config(runner={"ntrials": 2, "workers": 1})
            with pytest.raises(ZeroDivisionError):
                training.run_trials(alone, Signs(), experiment)
    finally:
        torch.set_num_threads(before)
    for seed in (3, 4):
        assert experiment.trial(seed).read_record()["machine"]["threads"] == 2
    training.run_trials(settings, Signs(), experiment)
    record = experiment.trial(4).read_record()
    assert (record["status"], record["machine"]["threads"], len(record["resumed_at"])) == ("finished", 2, 1)
    assert "thread" not in capsys.readouterr().err
    assert {each["threads"] for each in record["earlier_machines"]} == {2}


def test_nothing_is_measured_for_trials_that_have_all_finished(tmp_path, monkeypatch):
    settings = config(runner={"ntrials": 2, "workers": 1}, smoke_test=True)
    once = run_trials(settings, Signs(), tmp_path)
    monkeypatch.setattr(trials, "_choice", None)  # not to be called
    assert [trial.path for trial in run_trials(settings, Signs(), tmp_path)] == [trial.path for trial in once]


@pytest.mark.slow
@pytest.mark.usefixtures("forking")
def test_a_trial_is_measured_beside_others_without_a_trace(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(worker, "_device_memory", lambda: (9.0, 7.0, 5.0))
    settings = config(runner={"ntrials": 2}, train={"epochs": 40})
    experiment = training.experiment(settings, Signs(), tmp_path)
    short = {**settings, "smoke_test": True}
    outcomes = []
    with Workers(2) as pool:
        pool.submit(Trial(settings, Signs(), experiment, 3), Choice(2, 1), outcomes.append)
        measured = pool.device_memory(Trial(short, Signs(), replace(experiment, folder=tmp_path / "short"), 3, silent=True))
        assert not outcomes
    assert measured == DeviceMemory(9.0, 7.0, beside=1, host=5.0)
    assert [outcome.seed for outcome in outcomes] == [3]
    assert "smoke test" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(usable_cores() == 1, reason="one core: one trial at a time")
def test_a_sweep_uses_all_cores_by_default_and_gives_the_numbers_of_one_thread(sequential, tmp_path):
    done = run("-m", *TINY, "model=lstm,rnn", "runner.ntrials=2", cwd=tmp_path, threads=None)
    assert done.returncode == 0, done.stderr
    assert found(tmp_path / "runs") == sequential
    records = [json.loads(path.read_text()) for path in (tmp_path / "runs").rglob("record.json")]
    assert {record["machine"]["workers"] for record in records} == {min(4, usable_cores())}
    [sweep] = (tmp_path / "runs").glob("sweep_*")
    assert list(pd.read_csv(sweep / "table.csv")["model"]) == ["lstm", "rnn"]
    assert done.stdout.count("n trials") == 1
    for model in ("lstm", "rnn"):
        for seed in (0, 1):
            own = [line for line in done.stdout.splitlines() if line.startswith(f"{model} on digits, seed {seed}: ")]
            assert [line.partition(": ")[2].partition(":")[0] for line in own[1:]] == ["epoch 1 of 2", "epoch 2 of 2"]


@pytest.mark.slow
def test_a_job_that_fails_is_named_and_does_not_stop_the_others(tmp_path):
    diverging = ("train.optimizer=sgd", "model=rnn", "model.cell_args.hidden_activation=relu", "train.lr=1e30,0.01,0.02")
    done = run("-m", "runner.workers=2", *TINY[:4], *TINY[5:], *diverging, cwd=tmp_path)
    assert done.returncode == 2
    at_once, *at_the_end = done.stderr.splitlines()
    assert at_once.startswith("error: job 0 (")
    assert at_the_end[0] == "error: 1 of 3 jobs failed"
    assert "train.lr=1e+30: the training loss became" in at_the_end[1]
    assert sorted(statuses(tmp_path)) == ["failed", "finished", "finished"]


@pytest.mark.slow
def test_a_trial_that_another_process_trains_comes_last(tmp_path, capsys):
    settings = config(runner={"ntrials": 3, "workers": 2}, smoke_test=True)
    experiment = training.experiment(settings, Signs(), tmp_path)
    held = experiment.trial(3).lock(wait=True)
    assert held.__enter__()
    Timer(2, lambda: held.__exit__(None, None, None)).start()
    training.run_trials(settings, Signs(), experiment)
    out = capsys.readouterr().out
    assert out.count("waited for after the others") == 1
    assert re.findall(r"trial (\d) of 3", out)[-1] == "1"


@pytest.mark.parametrize("sweeps", [False, True])
def test_a_finished_trial_whose_lock_is_held_comes_last(sweeps, tmp_path, capsys):
    """Its line is printed, a failure of a trial beside it is reported, and the watcher gets all outcomes, once."""
    settings = config(runner={"ntrials": 3, "workers": 2}, smoke_test=True)
    experiment = training.experiment(settings, Signs(), tmp_path)
    training.run_trials(settings, Signs(), experiment)
    other = experiment.trial(4)
    other.write_record({**other.read_record(), "group": "different"})
    ended, failures = [], []
    watcher = SimpleNamespace(stopped=False, judge=lambda seed: None, ended=ended.append)
    capsys.readouterr()
    held = experiment.trial(3).lock(wait=True)
    assert held.__enter__()
    Timer(1, lambda: held.__exit__(None, None, None)).start()
    if sweeps:
        with Workers(3) as pool:
            training.run_trials(settings, Signs(), experiment, pool, failures.append, watcher)
        assert [str(failure).startswith(f"{other.path} has a trial of different settings") for failure in failures] == [True]
    else:
        with pytest.raises(UserError, match="has a trial of different settings"):
            training.run_trials(settings, Signs(), experiment, watcher=watcher)
    out = capsys.readouterr().out
    assert out.count("waited for after the others") == 1
    assert re.findall(r"trial (\d) of 3", out) == ["3", "1"]
    [outcomes] = ended
    assert [(outcome.seed, outcome.failure is None) for outcome in outcomes] == [(3, True), (4, False), (5, True)]


@pytest.mark.slow
def test_processes_of_a_server_give_the_same_numbers(tmp_path, monkeypatch):
    """So trials start where there is a GPU; the data set is sent to them."""
    settings = commandline.compose([*TINY, "model=gru", "runner.ntrials=2", "runner.accelerator=cpu"])
    data = datasets.load(settings["dataset"])
    outcomes = []
    for method in ("forkserver", "fork"):
        monkeypatch.setattr(workers, "start_method", lambda threads, method=method: method)
        experiment = training.experiment(settings, data, tmp_path / method)
        with Workers(2) as pool:
            for seed in (0, 1):
                pool.submit(Trial(settings, data, experiment, seed), Choice(2, 1), outcomes.append)
    assert [outcome.failure for outcome in outcomes] == [None] * 4
    for seed in (0, 1):
        first, second = (next((tmp_path / method).glob(f"*/seed_{seed}")) for method in ("forkserver", "fork"))
        assert_same(RunFolder(first), RunFolder(second))


@pytest.mark.slow
def test_processes_of_several_threads_do_not_wait_for_threads_that_were_not_forked(tmp_path):
    """GNU's OpenMP hangs in a forked process if the parent has computed with several threads."""
    settings = config(runner={"ntrials": 2}, train={"epochs": 1})
    experiment = training.experiment(settings, Signs(), tmp_path)
    threads, outcomes = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        torch.ones(1 << 20).exp().sum()
        with Workers(2) as pool:
            for seed in (3, 4):
                pool.submit(Trial(settings, Signs(), experiment, seed), Choice(2, 2), outcomes.append)
    finally:
        torch.set_num_threads(threads)
    assert [outcome.failure for outcome in outcomes] == [None, None]
    assert {outcome.record["machine"]["threads"] for outcome in outcomes} == {2}


@pytest.mark.slow
def test_a_terminal_shows_a_line_of_each_running_trial(tmp_path):
    master, slave = pty.openpty()
    command = [sys.executable, str(ROOT / "train.py"), *TINY, "train.epochs=30", "model=rnn", "runner.ntrials=2"]
    process = subprocess.Popen([*command, "runner.workers=2"], stdout=slave, stderr=slave, cwd=tmp_path)
    os.close(slave)
    shown = b""
    with suppress(OSError):  # the end of the program
        while part := os.read(master, 4096):
            shown += part
    os.close(master)
    assert process.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    for seed in (0, 1):
        assert re.search(rf"rnn on digits, seed {seed}: epoch \d+ of 30, \d+%, validation accuracy 0\.\d+", text)
        assert re.search(rf"rnn on digits, seed {seed}: [\d,]+ parameters, cpu \(1 thread\)", text)
    assert text.count("n trials") == 1
