"""Rows of the table of equal sizes, from records of trials."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from benchmarks import other_rates, successors
from benchmarks.pages import trials
from benchmarks.pages.results import SUCCESSORS
from seqmem.cli import commandline
from seqmem.results.evaluations import checksum
from tests.results.synthetic import configuration, write_run


def of_size(experiment, seed=0, **settings):
    """The config of an experiment of the table, with other settings of its sections, such as ``train={"lr": 1.0}``."""
    config = composed(f"successors/{experiment}") | {"seed": seed}
    return config | {section: config[section] | changes for section, changes in settings.items()}


@cache
def composed(experiment):
    return commandline.compose([f"experiment={experiment}"])


@pytest.fixture
def evaluated(monkeypatch):
    """The settings of evaluations, each of which writes a file with an accuracy of 0.9."""
    commands = []

    def run(command, **options):
        folder, setting = Path(command[2]), command[3]
        name, _, value = setting.partition("=")
        changed = {name: [None, json.loads(value)]}
        write_evaluation(folder, f"{len(commands)}", changed, 0.9)
        commands.append(setting)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def write_evaluation(folder, name, changed, accuracy, **others):
    (folder / "evaluations").mkdir(exist_ok=True)
    found = {"split": "test", "epoch": 49, "changed": changed, "result": {"test/accuracy": accuracy}, **others}
    (folder / "evaluations" / f"{name}.json").write_text(json.dumps(found))


def collect(folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["successors", str(folder / "runs"), "--output", str(folder / "out")])
    successors.main()
    return successors.read(folder / "out" / "trials.csv")


def test_finished_trials_of_the_experiments_become_rows(tmp_path, monkeypatch, evaluated, capsys):
    runs = tmp_path / "runs"
    write_run(runs / "a", of_size("pmnist_legs"), 0.97, epochs=10)
    write_run(runs / "b", of_size("pmnist_gru", seed=1), 0.9, result_last={"test/accuracy": 0.8})
    write_run(runs / "c", of_size("pmnist_legs", dataset={"permute": False}))
    write_run(runs / "d", configuration("legs", "mnist", permute=True))
    write_run(runs / "e", of_size("pmnist_lstm"), smoke_test=True)
    write_run(runs / "f", of_size("pmnist_lstm"), status="failed")
    write_run(runs / "g", of_size("ct_100to200_lru"), 0.8)
    write_run(runs / "h", of_size("ct_100to200_lru", dataset={"eval_hz": 0.5}), 0.85)
    write_run(runs / "i", of_size("ct_200to100_mingru"), 0.2)
    write_run(runs / "j", of_size("pmnist_gru", dataset={"permute": False}), status="failed")  # of no table
    write_run(runs / "k", of_size("pmnist_legs", seed=1, train={"lr": 1.0}), 0.1)  # not the experiment's learning rate
    found = collect(tmp_path, monkeypatch)
    assert capsys.readouterr().err == f"warning: not in the table: {runs / 'f'}: failed, no reason is recorded\n"
    assert [(row["task"], row["step_size"], row["model"], row["seed"], row["test_accuracy"]) for row in found] == [
        ("CharacterTrajectories, 100 Hz to 200 Hz", "rescaled", "lru", "0", "0.8"),
        ("CharacterTrajectories, 200 Hz to 100 Hz", "as trained", "mingru", "0", "0.2"),
        ("permuted MNIST", "as trained", "gru", "1", "0.9"),
        ("permuted MNIST", "as trained", "legs", "0", "0.97"),
    ]
    assert (found[-1]["best_epoch"], found[-1]["seconds"], found[-1]["peak_memory_mib"]) == ("10", "7.4", "887.2")
    assert [row["test_accuracy_last_epoch"] for row in found[-2:]] == ["0.8", ""]


def test_new_trials_replace_their_own_rows_alone(tmp_path, monkeypatch):
    write_run(tmp_path / "runs" / "a", of_size("pmnist_legs"), 0.97)
    write_run(tmp_path / "runs" / "b", of_size("pmnist_gru"), 0.9)
    collect(tmp_path, monkeypatch)
    (tmp_path / "runs").rename(tmp_path / "older")
    write_run(tmp_path / "runs" / "a", of_size("pmnist_legs"), 0.98)
    assert {row["model"]: row["test_accuracy"] for row in collect(tmp_path, monkeypatch)} == {"legs": "0.98", "gru": "0.9"}


def test_the_page_has_a_row_for_each_model_or_says_that_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "read", lambda file: [])
    assert SUCCESSORS.markdown().startswith("No trial of this table is in [benchmarks/results/successors/trials.csv]")
    for seed in (0, 1):
        write_run(tmp_path / "runs" / str(seed), of_size("pmnist_legs", seed=seed), 0.97 + seed / 100)
    found = collect(tmp_path, monkeypatch)
    monkeypatch.setattr(trials, "read", lambda file: found)
    assert "| permuted MNIST | legs | as trained | 2 | 0.975 +/- 0.007 |" in SUCCESSORS.markdown()


def test_trials_of_another_rate_are_evaluated_without_the_shift_too(tmp_path, monkeypatch, evaluated):
    write_run(tmp_path / "runs" / "a", of_size("ct_100to200_lru"), 0.8)
    write_run(tmp_path / "runs" / "b", of_size("ct_200to100_mingru"), 0.2)
    write_run(tmp_path / "runs" / "c", of_size("pmnist_lru"), 0.85)
    expected = {("lru", "0.9"), ("mingru", "0.9"), ("lru", "")}
    assert {(row["model"], row["test_accuracy_unshifted"]) for row in collect(tmp_path, monkeypatch)} == expected
    assert sorted(evaluated) == ["dataset.eval_hz=0.5", "dataset.eval_hz=1.0"]
    assert {(row["model"], row["test_accuracy_unshifted"]) for row in collect(tmp_path, monkeypatch)} == expected
    assert len(evaluated) == 2  # not again


def test_only_evaluations_of_the_best_weights_with_one_change_count(tmp_path):
    config = of_size("ct_100to200_lru")
    folder = write_run(tmp_path / "a", config, 0.8)
    change = {"dataset.eval_hz": [1.0, 0.5]}
    write_evaluation(folder.path, "1", change, 0.1, epoch=48)
    write_evaluation(folder.path, "2", change, 0.2, split="val")
    write_evaluation(folder.path, "3", change | {"model.rescale": [True, False]}, 0.3)
    write_evaluation(folder.path, "4", {"dataset.eval_hz": [1.0, 0.25]}, 0.4)
    write_evaluation(folder.path, "5", {}, 0.5)
    assert other_rates.unshifted_accuracy(folder, config) is None
    write_evaluation(folder.path, "6", change | {"dataset.files": ["1", "2"]}, 0.5)
    assert other_rates.unshifted_accuracy(folder, config) is None
    write_evaluation(folder.path, "7", change, 0.6)
    assert other_rates.unshifted_accuracy(folder, config) == 0.6
    folder.checkpoints.mkdir()
    (folder.checkpoints / "best.ckpt").write_bytes(b"of a later training")
    assert other_rates.unshifted_accuracy(folder, config) is None
    write_evaluation(folder.path, "8", change, 0.7, checkpoint_sha256=checksum(folder.checkpoints / "best.ckpt"))
    assert other_rates.unshifted_accuracy(folder, config) == 0.7
