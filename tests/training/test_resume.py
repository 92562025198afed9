"""A trial that was stopped goes on, and ends as if it had never been stopped."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch

from seqmem import datasets, training
from seqmem.cli import commandline
from seqmem.errors import UserError
from seqmem.results import RunFolder
from seqmem.training.loop.module import SequenceModule
from tests.program import ROOT
from tests.trials import assert_same, run_trials, saved

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

LIMITS = [f"train.limit_{split}_batches={count}" for split, count in {"train": 3, "val": 2, "test": 2}.items()]
SMALL = ["dataset=digits", "train.epochs=4", *LIMITS]
CASES = {
    "legs": ["model=legs", "train.lr_decay=0.1"],
    "lstm_cosine": ["model=lstm", "train.schedule=cosine", "train.gradient_clip_val=0.1"],
    "igloo_dropout": ["model=igloo", "train.optimizer=rmsprop"],
    "hmlstm_sampled": ["model=hmlstm", "model.cell_args.boundary=sample", "train.wd=0.01"],
    "hmlstm_text": ["model=hmlstm", "model.cell_args.boundary=soft", "model.cell_args.slope_growth=0.5"],
}


def composed(*keys, dataset="digits", **more):
    given = [f"dataset={dataset}", *(f"dataset.{key}={value}" for key, value in more.items())]
    return commandline.compose([*given, *SMALL[1:], "model.preset=tiny", *keys])


class Stop(Exception):
    """The fault that is injected."""


def stopping(method, at):
    """The module's method, which fails when it is called for the ``at``-th time."""
    original, calls = getattr(SequenceModule, method), []

    def stop(self, *args, **kwargs):
        calls.append(None)
        if len(calls) == at:
            raise Stop
        return original(self, *args, **kwargs)

    return stop


@pytest.mark.parametrize(("case", "minutes"), [*((case, 0) for case in CASES), ("lstm_cosine", 10)])
def test_a_trial_stopped_anywhere_ends_as_one_that_was_not(case, minutes, tmp_path, monkeypatch):
    """With a checkpoint after every batch, and with none within the epochs; a text's state is carried on, workers read it."""
    data_keys = {}
    if case == "hmlstm_text":
        (tmp_path / "words.txt").write_text("the quick brown fox jumps over the lazy dog " * 100)
        data_keys = {"dataset": "text", "path": tmp_path / "words.txt", "length": 20, "num_workers": 2}
    keys = ["train.batch_size=5", f"train.checkpoint_minutes={minutes}", "train.test_last=true"]
    config = composed(*CASES[case], *keys, **data_keys)
    data = datasets.load(config["dataset"])
    [whole] = run_trials(config, data, tmp_path / "whole")
    faults = [("training_step", 2), ("training_step", 5), ("validation_step", 6), ("test_step", 3)]
    for method, at in faults:
        with monkeypatch.context() as patch:
            patch.setattr(SequenceModule, method, stopping(method, at))
            with pytest.raises(Stop):
                run_trials(config, data, tmp_path / "stopped")
    [stopped] = run_trials(config, data, tmp_path / "stopped")
    assert_same(whole, stopped)
    assert stopped.read_record()["resumed_at"] == ([3, 9, 12] if minutes else [1, 5, 11, 12])


def test_a_finished_trial_is_found_and_a_folder_may_be_moved_between(tmp_path, monkeypatch, capsys):
    config = commandline.compose([*SMALL, "model=lstm", "model.preset=tiny"])
    data = datasets.load(config["dataset"])
    with monkeypatch.context() as patch:
        patch.setattr(SequenceModule, "training_step", stopping("training_step", 8))
        with pytest.raises(Stop):
            run_trials(config, data, tmp_path / "before")
    (tmp_path / "before").rename(tmp_path / "after")
    [moved] = run_trials(config, data, tmp_path / "after")
    [whole] = run_trials(config, data, tmp_path / "whole")
    assert_same(whole, moved)
    capsys.readouterr()
    before = (moved.path / "record.json").stat()
    run_trials(config, data, tmp_path / "after")
    assert "found in" in capsys.readouterr().out
    assert (moved.path / "record.json").stat() == before


def test_other_settings_code_or_data_are_another_experiment(tmp_path, monkeypatch):
    config = commandline.compose([*SMALL, "model=lstm", "model.preset=tiny"])
    data = datasets.load(config["dataset"])
    first = training.experiment(config, data, tmp_path)
    assert training.experiment({**config, "seed": 5}, data, tmp_path) == first
    found = {first.folder}
    found.add(training.experiment({**config, "train": {**config["train"], "lr": 0.5}}, data, tmp_path).folder)
    with monkeypatch.context() as patch:
        patch.setattr("seqmem.training.engines.trials.fingerprint", lambda model, data: "another")
        found.add(training.experiment(config, data, tmp_path).folder)
    with monkeypatch.context() as patch:
        patch.setattr(type(data), "describe", lambda self: {"files": {"digits": "changed"}})
        found.add(training.experiment(config, data, tmp_path).folder)
    assert len(found) == 4


def test_a_damaged_checkpoint_is_told_and_the_trial_begins_anew(tmp_path, monkeypatch, capsys):
    config = commandline.compose([*SMALL, "model=rnn", "model.preset=tiny"])
    data = datasets.load(config["dataset"])
    with monkeypatch.context() as patch:
        patch.setattr(SequenceModule, "training_step", stopping("training_step", 8))
        with pytest.raises(Stop):
            run_trials(config, data, tmp_path)
    [last] = tmp_path.glob("*/seed_0/checkpoints/last.ckpt")
    last.write_bytes(last.read_bytes()[:-1000])
    [folder] = run_trials(config, data, tmp_path)
    assert "the trial begins anew" in capsys.readouterr().err
    assert folder.read_record()["resumed_at"] == []
    assert len(folder.read_metrics()) == 4


def test_a_trial_goes_on_from_a_named_checkpoint_for_more_epochs(tmp_path, monkeypatch):
    def settings(*changes):
        return commandline.compose([*SMALL, "model=lstm", "model.preset=tiny", *changes])

    data = datasets.load(settings()["dataset"])
    [short] = run_trials(settings("train.epochs=2"), data, tmp_path)
    [resumed] = run_trials(settings(f"train.resume={short.path}"), data, tmp_path)
    [whole] = run_trials(settings(), data, tmp_path / "whole")
    assert resumed.path != short.path
    assert_same(whole, resumed)
    for changes, wanted in {
        ("train.lr=0.5",): "train.lr=0.001, expected 0.5",
        ("seed=1",): "seed=0, expected 1",
        ("train.epochs=1",): "has 2 epochs behind it, expected at most train.epochs=1",
        ("train.schedule=cosine", "train.epochs=2"): "train.schedule=constant, expected cosine",
    }.items():
        with pytest.raises(UserError, match=wanted):
            run_trials(settings(f"train.resume={short.path}", *changes), data, tmp_path)
    with pytest.raises(UserError, match=r"train.resume: got nowhere for 2 trials, expected runner.ntrials=1"):
        settings("train.resume=nowhere", "runner.ntrials=2")


def test_weights_that_are_not_finite_stop_the_trial_and_the_last_good_checkpoint_stays(tmp_path, monkeypatch):
    """The gradient of the third epoch's last update is poisoned, where no loss is computed after it."""
    config = commandline.compose([*SMALL, "model=lstm", "model.preset=tiny"])
    data = datasets.load(config["dataset"])

    def poison(self, optimizer):
        if self.global_step == 8:
            next(self.parameters()).grad.fill_(float("inf"))

    with monkeypatch.context() as patch:
        patch.setattr(SequenceModule, "on_before_optimizer_step", poison)
        with pytest.raises(UserError, match=r"no longer finite after step 9, in epoch 3 \(learning rate 0.001\)"):
            run_trials(config, data, tmp_path)
    [path] = tmp_path.glob("*/seed_0")
    assert all(torch.isfinite(value).all() for value in saved(RunFolder(path), "last.ckpt")["state_dict"].values())
    [mended] = run_trials(config, data, tmp_path)
    [whole] = run_trials(config, data, tmp_path / "whole")
    assert_same(whole, mended)


def test_no_checkpoint_within_an_epoch_holds_weights_that_are_not_finite(tmp_path, monkeypatch):
    """The gradient overflows while the loss is still finite."""
    config = commandline.compose([*SMALL, "model=lstm", "model.preset=tiny", "train.checkpoint_minutes=0"])
    data = datasets.load(config["dataset"])

    def poison(self, optimizer):
        if self.global_step == 4:
            next(self.parameters()).grad.fill_(float("inf"))

    with monkeypatch.context() as patch:
        patch.setattr(SequenceModule, "on_before_optimizer_step", poison)
        with pytest.raises(UserError, match="no longer finite after step 5, in epoch 2 "):
            run_trials(config, data, tmp_path)
    [path] = tmp_path.glob("*/seed_0")
    assert saved(RunFolder(path), "last.ckpt")["global_step"] == 4
    [mended] = run_trials(config, data, tmp_path)
    [whole] = run_trials(config, data, tmp_path / "whole")
    assert_same(whole, mended)


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """Config, data and folder of a trial that was stopped in its third epoch."""
    config = commandline.compose([*SMALL, "model=lstm", "model.preset=tiny"])
    data = datasets.load(config["dataset"])
    with monkeypatch.context() as patch:
        patch.setattr(SequenceModule, "training_step", stopping("training_step", 8))
        with pytest.raises(Stop):
            run_trials(config, data, tmp_path)
    [path] = tmp_path.glob("*/seed_0")
    return config, data, RunFolder(path)


@pytest.mark.parametrize("fault", [MemoryError(), PermissionError(13, "Permission denied")])
def test_a_checkpoint_that_cannot_be_read_now_is_kept(fault, stopped, tmp_path, monkeypatch):
    config, data, _ = stopped
    load = torch.load

    def fail(*args, **kwargs):
        raise fault

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises((UserError, MemoryError)):
        run_trials(config, data, tmp_path)
    monkeypatch.setattr(torch, "load", load)
    [resumed] = run_trials(config, data, tmp_path)
    assert resumed.read_record()["resumed_at"] == [6]
    assert_same(run_trials(config, data, tmp_path / "whole")[0], resumed)


@pytest.mark.parametrize("damage", ["cut", "gone", "foreign"])
def test_a_damaged_best_checkpoint_is_told_before_the_training(damage, stopped, tmp_path, capsys):
    config, data, folder = stopped
    best = folder.checkpoints / "best.ckpt"
    if damage == "cut":
        best.write_bytes(best.read_bytes()[:-500])
    elif damage == "gone":
        best.unlink()
    else:
        foreign = commandline.compose([*SMALL, "model=rnn", "model.preset=tiny", "train.epochs=1"])
        [other] = run_trials(foreign, data, tmp_path / "foreign")
        best.write_bytes((other.checkpoints / "best.ckpt").read_bytes())
    [anew] = run_trials(config, data, tmp_path)
    assert "the trial begins anew, and the file is damaged.ckpt now" in capsys.readouterr().err
    assert (anew.checkpoints / "damaged.ckpt").exists()
    assert anew.read_record()["resumed_at"] == []


def test_a_trial_may_go_on_from_its_own_best_checkpoint(stopped, tmp_path):
    config, data, folder = stopped
    last, best = (folder.checkpoints / name for name in ("last.ckpt", "best.ckpt"))
    last.write_bytes(last.read_bytes()[:-500])
    epoch = saved(folder, "best.ckpt")["epoch"]
    again = {**config, "train": {**config["train"], "resume": str(best)}}
    [resumed] = run_trials(again, data, tmp_path)
    assert resumed.path == folder.path
    assert resumed.read_record()["resumed_at"] == [3 * (epoch + 1)]
    assert_same(run_trials(config, data, tmp_path / "whole")[0], resumed)


def test_other_data_of_the_same_name_are_not_gone_on_with(stopped, tmp_path, monkeypatch):
    config, data, folder = stopped
    monkeypatch.setattr(type(data), "describe", lambda self: {"files": {"digits": "changed"}})
    again = {**config, "train": {**config["train"], "resume": str(folder.path)}}
    with pytest.raises(UserError, match=r"was trained on other data of the name digits"):
        run_trials(again, data, tmp_path / "other")


def test_a_complete_trial_that_is_gone_on_from_has_its_metrics(tmp_path):
    config = commandline.compose([*SMALL, "model=rnn", "model.preset=tiny"])
    data = datasets.load(config["dataset"])
    [whole] = run_trials(config, data, tmp_path)
    [other] = run_trials({**config, "train": {**config["train"], "resume": str(whole.path)}}, data, tmp_path / "other")
    assert_same(whole, other)


def test_no_validation_that_is_a_number_ends_in_one_line(tmp_path, monkeypatch):
    config = commandline.compose([*SMALL, "model=rnn", "model.preset=tiny", "train.epochs=1"])
    data = datasets.load(config["dataset"])
    monkeypatch.setattr("seqmem.tasks.classification.Classification.best", "min")
    log = SequenceModule.log

    def spoiled(self, name, value, **options):
        broken = name == "val/accuracy"
        log(self, name, torch.tensor(float("nan")) if broken else value, **options, **({"batch_size": 1} if broken else {}))

    monkeypatch.setattr(SequenceModule, "log", spoiled)
    with pytest.raises(UserError, match="no epoch ended with a finite val/accuracy"):
        run_trials(config, data, tmp_path)


def test_a_trial_that_is_interrupted_says_so(tmp_path, monkeypatch):
    config = commandline.compose([*SMALL, "model=rnn", "model.preset=tiny"])
    data = datasets.load(config["dataset"])

    def interrupt(self, *args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SequenceModule, "training_step", interrupt)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run_trials(config, data, tmp_path)
    [path] = tmp_path.glob("*/seed_0")
    record = RunFolder(path).read_record()
    assert (record["status"], record["reason"]) == ("interrupted", "stopped from outside; the same command goes on")


def test_what_a_kill_left_half_written_is_removed(stopped, tmp_path):
    config, data, folder = stopped
    left = folder.checkpoints / ".0123456789ab.last.ckpt"
    left.write_bytes(b"half")
    run_trials(config, data, tmp_path)
    assert not left.exists()


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
    told = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    lines = [line for out, _ in told for line in out.splitlines() if ", trial " in line]
    assert len(lines) == 8
    assert sum("; in " in line for line in lines) == 4
    records = [json.loads(path.read_text()) for path in tmp_path.glob("*/seed_*/record.json")]
    assert sorted(record["seed"] for record in records) == [0, 1, 2, 3]
    assert {record["status"] for record in records} == {"finished"}


@pytest.mark.slow  # and a hundred kills more in test_every_model.py
def test_a_process_that_is_killed_leaves_a_trial_that_goes_on(tmp_path):
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
