"""A trial that was stopped resumes, and ends as if it had never been stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.trainer.states import TrainerFn

from seqmem import datasets, training
from seqmem.cli import commandline
from seqmem.errors import UserError
from seqmem.io import interrupts
from seqmem.results import RunFolder
from seqmem.training.checkpoints.saving import WithinEpoch
from seqmem.training.loop.module import SequenceModule
from tests.program import ROOT
from tests.trials import assert_same, run_trials, saved

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

LIMITS = [f"train.limit_{split}_batches={count}" for split, count in {"train": 3, "val": 2, "test": 2}.items()]
SMALL = ["dataset=digits", "train.epochs=4", *LIMITS]
LSTM = [*SMALL, "model=lstm", "model.preset=tiny"]
BY_STEP = ["train.schedule=cosine", "train.schedule_interval=step", "train.warmup_steps=0.3"]
CASES = {
    "legs": ["model=legs", "train.lr_decay=0.1"],
    "lstm_cosine": ["model=lstm", *BY_STEP, "train.gradient_clip_val=0.1"],
    "igloo_dropout": ["model=igloo", "train.optimizer=rmsprop", "train.schedule=cosine"],
    "hmlstm_sampled": ["model=hmlstm", "model.cell_args.boundary=sample", "train.wd=0.01"],
    "sampled_text": ["model=hmlstm", "model.cell_args.boundary=sample", "train.optimizer=muon"],
    "soft_text": ["model=hmlstm", "model.cell_args.boundary=soft", "model.cell_args.slope_growth=0.5"],
    "fresh_words": ["model=lstm"],
    "dtriv": ["model=orthogonal", "model.cell_args.method=dtriv", "model.cell_args.K=3", "train.accumulate_grad_batches=2"],
}


def composed(*keys, dataset="digits", **more):
    given = [f"dataset={dataset}", *(f"dataset.{key}={value}" for key, value in more.items())]
    return commandline.compose([*given, *SMALL[1:], "model.preset=tiny", *keys])


class Stop(Exception):
    """The injected fault."""


def stopping(method, at):
    """The module's method, which fails when it is called for the ``at``-th time."""
    original, calls = getattr(SequenceModule, method), []

    def stop(self, *args, **kwargs):
        calls.append(None)
        if len(calls) == at:
            raise Stop
        return original(self, *args, **kwargs)

    return stop


def stop_at(method, at, config, data, folder):
    """Run the trials of a config until a fault."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SequenceModule, method, stopping(method, at))
        with pytest.raises(Stop):
            run_trials(config, data, folder)


@pytest.mark.parametrize(
    ("case", "minutes"),
    [
        ("lstm_cosine", 0),
        pytest.param("lstm_cosine", 10, marks=pytest.mark.slow),
        ("sampled_text", 0),
        ("dtriv", 0),
        *(pytest.param("fresh_words", minutes, marks=pytest.mark.slow) for minutes in (0, 10)),
        *(pytest.param(case, 0, marks=pytest.mark.slow) for case in ("legs", "igloo_dropout", "hmlstm_sampled", "soft_text")),
    ],
)
def test_a_trial_stopped_anywhere_ends_as_one_that_was_not(case, minutes, tmp_path):
    """With a checkpoint after every batch, and with none within the epochs.

    The state of a text is carried, and words of a group are drawn anew in each epoch.
    """
    data_keys = {}
    if case.endswith("text"):
        (tmp_path / "words.txt").write_text("the quick brown fox jumps over the lazy dog " * 100)
        data_keys = {"dataset": "text", "path": tmp_path / "words.txt", "length": 20, "num_workers": 2 * (case == "soft_text")}
    if case == "fresh_words":
        data_keys = {"dataset": "group_words", "group": "S3", "length": 6, "train_samples": 15, "num_workers": minutes // 5}
    keys = ["train.batch_size=5", f"train.checkpoint_minutes={minutes}", "train.test_last=true"]
    config = composed(*CASES[case], *keys, **data_keys)
    data = datasets.load(config["dataset"])
    [whole] = run_trials(config, data, tmp_path / "whole")
    for method, at in (("training_step", 2), ("training_step", 5), ("validation_step", 6), ("test_step", 3)):
        stop_at(method, at, config, data, tmp_path / "stopped")
    [stopped] = run_trials(config, data, tmp_path / "stopped")
    assert_same(whole, stopped)
    updates = [0, 3, 7, 8] if case == "dtriv" else [1, 5, 11, 12]  # two batches make one, and an epoch has three
    assert stopped.read_record()["resumed_at"] == ([3, 9, 12] if minutes else updates)


@pytest.fixture(scope="module")
def lstm(tmp_path_factory):
    """Config and data of a small trial, the trial itself, and the folder of one that was stopped in its third epoch."""
    config = commandline.compose(LSTM)
    data = datasets.load(config["dataset"])
    folder = tmp_path_factory.mktemp("lstm")
    [whole] = run_trials(config, data, folder / "whole")
    stop_at("training_step", 8, config, data, folder / "stopped")
    return config, data, whole, folder / "stopped"


@pytest.fixture
def stopped(lstm, tmp_path):
    """Config, data, the whole trial, and a copy of the one that was stopped."""
    config, data, whole, folder = lstm
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    [path] = tmp_path.glob("*/seed_0")
    return config, data, whole, RunFolder(path)


def test_a_trial_in_a_moved_folder_resumes_and_a_finished_one_is_found(stopped, tmp_path, capsys):
    config, data, whole, _ = stopped
    [moved] = run_trials(config, data, tmp_path)
    assert_same(whole, moved)
    assert moved.read_record()["resumed_at"] == [6]
    capsys.readouterr()
    before = (moved.path / "record.json").stat()
    run_trials(config, data, tmp_path)
    assert "found in" in capsys.readouterr().out
    assert (moved.path / "record.json").stat() == before


def test_other_settings_code_or_data_are_another_experiment(lstm, tmp_path, monkeypatch):
    config, data, _, _ = lstm
    first = training.experiment(config, data, tmp_path)
    assert training.experiment({**config, "seed": 5}, data, tmp_path) == first
    found = {first.folder}
    found.add(training.experiment({**config, "train": {**config["train"], "lr": 0.5}}, data, tmp_path).folder)
    with monkeypatch.context() as patch:
        patch.setattr("seqmem.training.engines.trials.fingerprint", lambda *_: "another")
        found.add(training.experiment(config, data, tmp_path).folder)
    with monkeypatch.context() as patch:
        patch.setattr(type(data), "describe", lambda self: {"files": {"digits": "changed"}})
        found.add(training.experiment(config, data, tmp_path).folder)
    assert len(found) == 4


def test_a_trial_resumes_from_a_named_checkpoint_for_more_epochs(lstm, tmp_path):
    _, data, whole, _ = lstm

    def settings(*changes):
        return commandline.compose([*LSTM, *changes])

    [short] = run_trials(settings("train.epochs=2"), data, tmp_path)
    [resumed] = run_trials(settings(f"train.resume={short.path}"), data, tmp_path)
    assert resumed.path != short.path
    assert_same(whole, resumed)
    [complete] = run_trials(settings(f"train.resume={whole.path}"), data, tmp_path / "complete")
    assert_same(whole, complete)  # its metrics, too
    for changes, message in {
        ("train.lr=0.5",): "train.lr=0.001, expected 0.5",
        ("seed=1",): "seed=0, expected 1",
        ("train.epochs=1",): "was trained for 2 epochs, expected at most train.epochs=1",
        ("train.schedule=cosine", "train.epochs=2"): "train.schedule=constant, expected cosine",
    }.items():
        with pytest.raises(UserError, match=message):
            run_trials(settings(f"train.resume={short.path}", *changes), data, tmp_path)
    stop_at("training_step", 8, settings("train.checkpoint_minutes=0"), data, tmp_path / "within")
    [within] = (tmp_path / "within").glob("*/seed_0")
    with pytest.raises(UserError, match=r"was trained for 2 epochs and a part of the next, expected at most train.epochs=2"):
        run_trials(settings(f"train.resume={within}", "train.epochs=2"), data, tmp_path / "fewer")
    with pytest.raises(UserError, match=r"train.resume: got ''.*at least 1 character"):
        settings("train.resume=")
    with pytest.raises(UserError, match=r"train.resume: got nowhere for 2 trials, expected runner.ntrials=1"):
        settings("train.resume=nowhere", "runner.ntrials=2")


def test_a_rate_that_depends_on_the_epochs_keeps_their_number(tmp_path):
    keys = ["model=rnn", "train.warmup_steps=0.5"]
    config = composed(*keys, "train.epochs=1")
    data = datasets.load(config["dataset"])
    [short] = run_trials(config, data, tmp_path)
    with pytest.raises(UserError, match=r"was trained with train\.epochs=1, expected 2"):
        run_trials(composed(*keys, "train.epochs=2", f"train.resume={short.path}"), data, tmp_path)


@pytest.mark.parametrize(
    ("minutes", "step", "message", "kept"),
    [
        (10, 8, r"no longer finite after step 9, in epoch 3 \(learning rate 0.001\)", 6),  # no loss comes after it
        (0, 4, "no longer finite after step 5, in epoch 2 ", 4),  # the loss is still finite
    ],
)
def test_weights_that_are_not_finite_stop_the_trial_and_the_last_good_checkpoint_stays(
    minutes, step, message, kept, lstm, tmp_path, monkeypatch
):
    """The gradient of an update is spoiled."""
    _, data, whole, _ = lstm
    config = commandline.compose([*LSTM, f"train.checkpoint_minutes={minutes}"])

    def spoil(self, optimizer):
        if self.global_step == step:
            next(self.parameters()).grad.fill_(float("inf"))

    with monkeypatch.context() as patch:
        patch.setattr(SequenceModule, "on_before_optimizer_step", spoil)
        with pytest.raises(UserError, match=message):
            run_trials(config, data, tmp_path)
    [path] = tmp_path.glob("*/seed_0")
    last = saved(RunFolder(path), "last.ckpt")
    assert last["global_step"] == kept
    assert all(torch.isfinite(value).all() for value in last["state_dict"].values())
    [resumed] = run_trials(config, data, tmp_path)
    assert_same(whole, resumed)


def test_a_checkpoint_that_cannot_be_read_now_is_kept(stopped, tmp_path, monkeypatch):
    for fault in [MemoryError(), PermissionError(13, "Permission denied")]:
        config, data, _, folder = stopped
        before = (folder.checkpoints / "last.ckpt").read_bytes()

        def fail(*args, fault=fault, **kwargs):
            raise fault

        monkeypatch.setattr(torch, "load", fail)
        with pytest.raises((UserError, MemoryError)):
            run_trials(config, data, tmp_path)
        assert (folder.checkpoints / "last.ckpt").read_bytes() == before


@pytest.mark.parametrize("damage", ["cut last", "cut", "gone", "foreign"])
def test_a_damaged_checkpoint_is_reported_and_the_trial_starts_again(damage, stopped, tmp_path, capsys):
    config, data, whole, folder = stopped
    best, last = folder.checkpoints / "best.ckpt", folder.checkpoints / "last.ckpt"
    if damage == "cut last":
        last.write_bytes(last.read_bytes()[:-1000])
    elif damage == "cut":
        best.write_bytes(best.read_bytes()[:-500])
    elif damage == "gone":
        best.unlink()
    else:
        content = torch.load(best, weights_only=True)
        content["hyper_parameters"]["config"]["train"]["lr"] = 0.7
        torch.save(content, best)
    run_trials(config, data, tmp_path)
    assert "the trial starts again, and the file is now damaged.ckpt" in capsys.readouterr().err
    assert (folder.checkpoints / "damaged.ckpt").exists()
    assert folder.read_record()["resumed_at"] == []
    assert_same(whole, folder)


def test_a_trial_may_resume_from_its_own_best_checkpoint(stopped, tmp_path):
    config, data, whole, folder = stopped
    last, best = (folder.checkpoints / name for name in ("last.ckpt", "best.ckpt"))
    last.write_bytes(last.read_bytes()[:-500])
    epoch = saved(folder, "best.ckpt")["epoch"]
    again = {**config, "train": {**config["train"], "resume": str(best)}}
    [resumed] = run_trials(again, data, tmp_path)
    assert resumed.path == folder.path
    assert resumed.read_record()["resumed_at"] == [3 * (epoch + 1)]
    assert_same(whole, resumed)


def test_a_checkpoint_of_different_data_of_the_same_name_is_refused(stopped, tmp_path, monkeypatch):
    config, data, _, folder = stopped
    monkeypatch.setattr(type(data), "describe", lambda self: {"files": {"digits": "changed"}})
    again = {**config, "train": {**config["train"], "resume": str(folder.path)}}
    with pytest.raises(UserError, match=r"was trained on different data of the name digits"):
        run_trials(again, data, tmp_path / "other")


@pytest.mark.parametrize("changed", ["train.lr=0.5", "train.epochs=1", "data"])
def test_a_checkpoint_of_a_different_trial_without_a_record_is_refused_and_kept(changed, stopped, tmp_path, monkeypatch):
    config, data, _, folder = stopped
    last = folder.checkpoints / "last.ckpt"
    before = last.read_bytes()
    (folder.path / "record.json").unlink()
    if changed == "data":
        monkeypatch.setattr(type(data), "describe", lambda self: {"files": {"digits": "changed"}})
        message = r"last.ckpt is of a trial with data=\w+, expected \w+ as here, or an empty folder"
    else:
        config = commandline.compose([*LSTM, changed])
        message = {
            "train.lr=0.5": r"last.ckpt is of a trial with train.lr=0.001, expected 0.5 as here, or an empty folder",
            "train.epochs=1": r"last.ckpt was trained for 2 epochs, expected at most train.epochs=1, or an empty folder",
        }[changed]
    experiment = replace(training.experiment(config, data, tmp_path), folder=folder.path.parent)
    with pytest.raises(UserError, match=message):
        training.run_trials(config, data, experiment)
    assert last.read_bytes() == before


def test_validation_without_a_finite_metric_ends_in_one_line(lstm, tmp_path, monkeypatch):
    _, data, _, _ = lstm
    config = composed("model=rnn", "train.epochs=1")
    monkeypatch.setattr("seqmem.tasks.classification.Classification.best", "min")
    log = SequenceModule.log

    def spoiled(self, name, value, **options):
        broken = name == "val/accuracy"
        log(self, name, torch.tensor(float("nan")) if broken else value, **options, **({"batch_size": 1} if broken else {}))

    monkeypatch.setattr(SequenceModule, "log", spoiled)
    with pytest.raises(UserError, match="val/accuracy: no finite value in any epoch"):
        run_trials(config, data, tmp_path)


def test_an_interrupted_trial_says_so_and_what_a_kill_left_is_removed(stopped, tmp_path, monkeypatch):
    config, data, _, folder = stopped
    half_written = folder.checkpoints / ".0123456789ab.last.ckpt"
    half_written.write_bytes(b"half")

    def interrupt(self, *args):
        raise KeyboardInterrupt

    monkeypatch.setattr(SequenceModule, "training_step", interrupt)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run_trials(config, data, tmp_path)
    record = folder.read_record()
    assert (record["status"], record["reason"]) == ("interrupted", "stopped from outside; the same command resumes")
    assert not half_written.exists()


def signalled(method, at, number):
    """The module's method, which gets a signal when it is called for the ``at``-th time."""
    original, calls = getattr(SequenceModule, method), []

    def send(self, *args, **kwargs):
        calls.append(None)
        if len(calls) == at:
            os.kill(os.getpid(), number)
        return original(self, *args, **kwargs)

    return send


MOMENTS = {("training_step", 2): 2, ("training_step", 1): 3, ("validation_step", 1): 3, ("validation_step", 3): 6}
"""Moments of a signal since the last resume, and the number of updates in the checkpoint; an epoch has three batches."""


@pytest.mark.parametrize("case", ["lstm_cosine", pytest.param("soft_text", marks=pytest.mark.slow)])
def test_ctrl_c_saves_a_checkpoint_within_the_epoch_or_its_validation(case, tmp_path, capfd):
    """Four times: within an epoch, in its last batch, and in the first and last batch of a validation."""
    data_keys = {}
    if case.endswith("text"):
        (tmp_path / "words.txt").write_text("the quick brown fox jumps over the lazy dog " * 100)
        data_keys = {"dataset": "text", "path": tmp_path / "words.txt", "length": 20, "num_workers": 2}
    config = composed(*CASES[case], "train.batch_size=5", "train.test_last=true", **data_keys)
    data = datasets.load(config["dataset"])
    [whole] = run_trials(config, data, tmp_path / "whole")
    for (method, at), updates in MOMENTS.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SequenceModule, method, signalled(method, at, signal.SIGINT))
            with pytest.raises(KeyboardInterrupt):
                run_trials(config, data, tmp_path / "stopped")
        [path] = (tmp_path / "stopped").glob("*/seed_0")
        assert RunFolder(path).read_record()["status"] == "interrupted"
        assert saved(RunFolder(path), "last.ckpt")["global_step"] == updates, (method, at)
    assert "saves a checkpoint first" in capfd.readouterr().err
    [stopped] = run_trials(config, data, tmp_path / "stopped")
    assert_same(whole, stopped)
    assert stopped.read_record()["resumed_at"] == list(MOMENTS.values())


@pytest.mark.parametrize(("written", "left"), [("running", "interrupted"), ("finished", "finished")])
def test_a_signal_while_the_record_is_written_does_not_leave_a_trial_running(written, left, tmp_path, monkeypatch):
    original = RunFolder.write_record

    def write_record(self, record):
        if record["status"] == written:
            os.kill(os.getpid(), signal.SIGINT)
        original(self, record)

    config = composed("model=lstm", "smoke_test=true")
    data = datasets.load(config["dataset"])
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_record", write_record)
        with pytest.raises(KeyboardInterrupt):
            run_trials(config, data, tmp_path)
    [path] = tmp_path.glob("*/seed_0")
    assert RunFolder(path).read_record()["status"] == left
    [trial] = run_trials(config, data, tmp_path)
    assert trial.finished() is not None


@pytest.mark.slow
def test_two_processes_share_the_trials_of_an_experiment(tmp_path):
    """Each trial is trained once, by one of them, and both have all results."""
    script = (
        "import sys; sys.argv = ['train.py', *sys.argv[1:]]; from seqmem import datasets; from seqmem.cli import commandline; "
        "from seqmem import training; config = commandline.compose(sys.argv[1:]); data = datasets.load(config['dataset']); "
        "print(training.run_trials(config, data, training.experiment(config, data)))"
    )
    command = [
        sys.executable,
        "-c",
        script,
        *SMALL,
        "model=rnn",
        "model.preset=tiny",
        "runner.ntrials=4",
        f"output_dir={tmp_path}",
    ]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    lines = [line for out, _ in outputs for line in out.splitlines() if ", trial " in line]
    assert len(lines) == 8
    assert sum("; in " in line for line in lines) == 4
    records = [json.loads(path.read_text()) for path in tmp_path.glob("*/seed_*/record.json")]
    assert sorted(record["seed"] for record in records) == [0, 1, 2, 3]
    assert {record["status"] for record in records} == {"finished"}


@pytest.mark.slow  # and a hundred kills more in test_every_model.py
def test_a_process_that_is_killed_leaves_a_trial_that_resumes(tmp_path):
    command = [*SMALL, "model=lstm", "model.preset=tiny", "train.epochs=40", f"output_dir={tmp_path / 'killed'}"]
    started = subprocess.Popen([sys.executable, "train.py", *command], cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not (rows := list((tmp_path / "killed").glob("*/seed_0/metrics.csv"))) or len(rows[0].read_text().splitlines()) < 10:
        assert started.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    started.send_signal(signal.SIGKILL)
    started.wait()
    config = commandline.compose(command)
    data = datasets.load(config["dataset"])
    [killed] = run_trials(config, data, tmp_path / "killed")
    [whole] = run_trials(config, data, tmp_path / "whole")
    assert len(killed.read_record()["resumed_at"]) == 1
    assert_same(whole, killed)


@pytest.mark.parametrize(
    "hook", ["on_train_epoch_start", "on_validation_start", "on_validation_batch_end", "on_train_batch_end"]
)
def test_of_several_processes_none_stops_alone_at_a_signal(hook, tmp_path, monkeypatch):
    """A signal that comes within the reduction counts at the next check, which the other processes see too."""

    def reduced(wishes, reduce_op):
        monkeypatch.setattr(interrupts._state, "received", signal.SIGTERM)
        return wishes

    strategy = SimpleNamespace(root_device=torch.device("cpu"), reduce=reduced)
    state = SimpleNamespace(fn=TrainerFn.FITTING)
    trainer = SimpleNamespace(world_size=2, state=state, strategy=strategy, is_last_batch=False)
    within = WithinEpoch(tmp_path / "last.ckpt", 10)
    within._last_saved = time.monotonic()
    saved = []
    monkeypatch.setattr(within, "_save", lambda *_: saved.append(True))
    arguments = (trainer, None, None, None, 0) if "batch" in hook else (trainer, None)
    getattr(within, hook)(*arguments)
    assert saved == []
    if "batch" in hook:
        for batch in range(1, 10):
            getattr(within, hook)(*arguments[:-1], batch)
    with pytest.raises(interrupts.Interrupted):
        getattr(within, hook)(*arguments[:-1], *([10] if "batch" in hook else arguments[-1:]))
    assert saved == [True] * (hook != "on_train_epoch_start")


def test_one_process_saves_at_a_signal_that_comes_between_the_check_and_the_end_of_the_callback(tmp_path, monkeypatch):
    """Without a checkpoint the progress within the epoch would be lost."""
    trainer = SimpleNamespace(world_size=1, state=SimpleNamespace(fn=TrainerFn.FITTING))
    within = WithinEpoch(tmp_path / "last.ckpt", 10)
    monkeypatch.setattr(within, "_save_or_stop", lambda *_, **__: monkeypatch.setattr(interrupts._state, "received", 15))
    within.on_validation_start(trainer, None)
    within.on_validation_batch_end(trainer, None, None, None, 0)
