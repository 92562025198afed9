"""Command lines about a finished trial: ``CHECKPOINT [KEY=VALUE ...]``, and mistakes in them."""

import json
from dataclasses import dataclass
from typing import Literal

import pytest
import torch

from seqmem import datasets
from seqmem.cli import commandline, finished_trial
from seqmem.errors import UserError
from seqmem.results.record import settings as flat
from tests import program
from tests.trials import run_trials


@dataclass(frozen=True)
class Keys:
    split: Literal["test", "validation"] = "test"
    sequence: int = 0


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    settings = "dataset=sinusoids dataset.length=20 dataset.train_samples=4 model=hmlstm model.preset=tiny smoke_test=true"
    config = commandline.compose([*settings.split(), "runner.accelerator=cpu"])
    [folder] = run_trials(config, datasets.load(config["dataset"]), tmp_path_factory.mktemp("runs"))
    return folder.path


def test_own_keys_and_changes_of_the_config_are_told_apart(trial):
    command = [str(trial), "split=validation", "dataset.length=50", "train.limit_val_batches=1", "smoke_test=false"]
    checkpoint, config, keys = finished_trial.read(command, Keys)
    assert keys == Keys("validation")
    assert checkpoint.folder == trial
    assert (config["dataset"]["length"], checkpoint.config["dataset"]["length"]) == (50, 20)
    assert config["train"]["limit_val_batches"] == 1
    assert config["model"] == checkpoint.config["model"]
    _, config, _ = finished_trial.read([str(trial), "dataset=sinusoids"], Keys)
    assert config["dataset"]["length"] == 400


TRAINED = {"train_hz": 0.5, "train_uniform": True, "train_ts": 1.0}
TWINS = {"train_hz": 0.25, "train_uniform": False, "train_ts": 2.0}


@pytest.mark.parametrize("key", TWINS)
def test_the_training_of_a_finished_trial_keeps_its_rate(key):
    """The rate of an evaluation is relative to that of the training."""
    config = commandline.compose(["dataset=ct", "dataset.train_hz=0.5", "dataset.eval_ts=3"])
    twin = key.replace("train", "eval")
    message = (
        f"dataset.{key}: got {TWINS[key]}, expected {TRAINED[key]} as in the trial's training; did you mean dataset.{twin}?"
    )
    for given in ({}, {"dataset": "ct"}):
        with pytest.raises(UserError) as caught:
            finished_trial._changed(config, {**given, f"dataset.{key}": TWINS[key]}, [], [])
        assert str(caught.value) == message
        changed = finished_trial._changed(config, {**given, f"dataset.{twin}": TWINS[key]}, [], [])["dataset"]
        assert {name: changed[name] for name in TRAINED} == TRAINED
        assert changed[twin] == TWINS[key]
        assert changed["eval_ts"] == (TWINS[key] if twin == "eval_ts" else 1.0 if given else 3.0)
    other = commandline.compose(["dataset=digits"])
    changed = finished_trial._changed(other, {"dataset": "ct", f"dataset.{key}": TWINS[key]}, [], [])["dataset"]
    assert changed[key] == TWINS[key]


def test_a_path_that_exists_is_a_path_whatever_its_name(trial, tmp_path):
    link = tmp_path / "lr=0.1 #2"
    link.symlink_to(trial)
    assert finished_trial.read([str(link)], Keys)[0].folder == link


def test_trials_below_the_folder_of_a_sweep_are_named(tmp_path):
    for seed in range(5):
        (tmp_path / "digits_gru_abc" / f"seed_{seed}").mkdir(parents=True)
    trials = ", ".join(str(tmp_path / "digits_gru_abc" / f"seed_{seed}") for seed in range(3))
    with pytest.raises(UserError) as caught:
        finished_trial.read([str(tmp_path)], Keys)
    assert str(caught.value).endswith(f"a finished trial, as {trials} or 2 more")


MISTAKES = {
    "": "expected a checkpoint or the folder of a finished trial first",
    "split=test": "expected a checkpoint or the folder of a finished trial first",
    "nowhere.ckpt": "cannot read the checkpoint nowhere.ckpt",
    "words.txt": "words.txt is not a checkpoint",
    "plain.pt": "plain.pt is not a checkpoint of seqmem train",
    ".": ". holds no checkpoints/best.ckpt",
    "TRIAL split=tset": "split: got 'tset', expected 'test' or 'validation'; did you mean 'test'?",
    "TRIAL length=5": "length: no such key; did you mean 'dataset.length'",
    "TRIAL --lengths 5,6": "--lengths: no such flag; keys have no dashes: lengths=5,6",
    "TRIAL splt=test": "splt: no such key; did you mean 'split'?",
    "TRIAL dataset.lenght=50": "did you mean 'length'?",
    "TRIAL eval_batch_size=5": "did you mean 'train.eval_batch_size'?",
    "TRIAL dataset.batch_size=5": "did you mean 'train.batch_size'?",
    "a=b/seed_0": "expected a checkpoint or the folder of a finished trial first",
    "TRIAL train.batch=5": "did you mean 'batch_size'?",
    "TRIAL train.lr.x=5": "train.lr.x: no such key; lr is a single value",
    "TRIAL model.cell=lstm": "model.cell: got lstm, but a finished trial's model cannot be changed; train with model.cell=lstm",
    "TRIAL sequence=1,2": "got 'sequence=1,2', expected KEY=VALUE with one value",
    "TRIAL +new=1": "got '+new=1', expected KEY=VALUE",
    "TRIAL --cfg job": "got --cfg, expected CHECKPOINT [KEY=VALUE ...]",
}


@pytest.mark.parametrize(
    ("dataset", "key", "value", "given"),
    [
        ("mnist", "dataset.split_seed", 3, 0),
        ("mnist", "dataset.validation_fraction", 0.3, 0.2),
        ("uea", "dataset.resplit", True, False),
        ("files", "dataset.split_by", "series", "time"),
        ("files", "dataset.group_column", "subject", None),
        ("uea", "dataset.split_seed", None, 0),
        ("uea", "seed", 4, 0),
        ("moving_digits", "dataset.seed", 1, 0),
        ("text8", "dataset.characters", 700_000, 600_000),
    ],
)
def test_sequences_of_the_training_cannot_move_to_another_split(dataset, key, value, given):
    """Otherwise a test would be of sequences that the model has learned."""
    trained = [
        f"{key}={json.dumps(value)}",
        *["dataset.resplit=true"] * (dataset == "uea"),
        *["dataset.split_seed=null"] * (key == "seed"),
    ]
    config = commandline.compose([f"dataset={dataset}", *trained])
    message = f"{key}: got {given}, expected {value} as in the trial's training, whose sequences would be in other splits"
    for chosen in ({}, {"dataset": dataset}):
        with pytest.raises(UserError) as caught:
            finished_trial._changed(config, {**chosen, key: given}, [], [])
        assert str(caught.value) == message
        unchanged = finished_trial._changed(config, {**chosen, key: value}, [], [])
        assert {"seed": unchanged["seed"], **flat(unchanged)}[key] == value


def test_other_files_have_splits_of_their_own_and_a_seed_does_not_always_choose_them(tmp_path):
    config = commandline.compose(["dataset=files", "dataset.path=a.csv"])
    changes = {"dataset.path": "b.csv", "dataset.test_fraction": 0.5, "seed": 3}
    changed = finished_trial._changed(config, changes, [], [])
    assert {key: {"seed": changed["seed"], **flat(changed)}[key] for key in changes} == changes
    assert finished_trial._changed(config, {"seed": 3}, [], [])["seed"] == 3
    config = commandline.compose(["dataset=uea", "dataset.problem=Heartbeat"])
    changed = finished_trial._changed(config, {"dataset.problem": "EigenWorms", "dataset.resplit": True}, [], [])
    assert changed["dataset"]["resplit"]


def test_a_longer_text_has_no_character_of_the_training_in_its_test():
    config = commandline.compose(["dataset=text8", "dataset.characters=600000"])
    for given in (700_000, None):
        assert finished_trial._changed(config, {"dataset.characters": given}, [], [])["dataset"]["characters"] == given


def test_each_mistake_is_named(trial, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.txt").write_text("not a checkpoint")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "plain.pt")
    for arguments, message in MISTAKES.items():
        with pytest.raises(UserError) as caught:
            finished_trial.read([str(trial) if part == "TRIAL" else part for part in arguments.split()], Keys)
        assert message in str(caught.value), arguments


@pytest.mark.parametrize("command", [("evaluate.py",), ("-m", "seqmem.boundaries")])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [("TRIAL length", "got 'length', expected KEY=VALUE"), ("TRIAL dataset=sinusoid", "did you mean 'sinusoids'?")],
)
def test_both_commands_end_in_one_line(command, arguments, message, trial, tmp_path):
    done = program.run([*command, *arguments.replace("TRIAL", str(trial)).split()], tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_the_former_boundaries_script_says_that_it_has_moved_and_works(trial, tmp_path):
    done = program.run(["boundaries.py", str(trial)], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "boundaries.py has moved: python -m seqmem.boundaries\n"
    assert "boundary rates: layer 1 " in done.stdout


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        (("evaluate.py",), ("CHECKPOINT", "split=", "predictions=", "dataset=NAME", "evaluations/")),
        (
            ("-m", "seqmem.boundaries"),
            ("CHECKPOINT", "split=", "sequence=", "characters=", "picture=", "dataset=NAME"),
        ),
        (
            ("-m", "seqmem.memory"),
            (
                "CHECKPOINT",
                "split=",
                "layer=",
                "lags=",
                "left=",
                "sequences=",
                "gradient_sequences=",
                "probes=",
                "csv=",
                "picture=",
            ),
        ),
    ],
)
def test_help_names_every_key_of_a_command(command, keys, tmp_path):
    done = program.run([*command, "--help"], tmp_path)
    assert done.returncode == 0
    assert [key for key in keys if key not in done.stdout] == []
