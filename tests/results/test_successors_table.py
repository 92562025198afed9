"""Rows of the table of equal sizes, from records of trials."""

import sys

from benchmarks import successors
from benchmarks.pages import trials
from benchmarks.pages.results import SUCCESSORS
from tests.results.synthetic import configuration, write_run


def of_size(cell="legs", dataset="mnist", seed=0, mixer="", **settings):
    """A config with the preset of the table, of a stack if there is a mixer."""
    config = configuration(cell, dataset, seed=seed, **settings)
    config["model"]["preset"] = "params_100k"
    if mixer:
        config["model"] |= {"network": "stack", "mixer": mixer, "rescale": True}
    return config


def strokes(train, test):
    return {"timestamp": False, "train_hz": train, "eval_hz": test}


def collect(folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["successors", str(folder / "runs"), "--output", str(folder / "out")])
    successors.main()
    return successors.read(folder / "out" / "trials.csv")


def test_finished_trials_of_the_preset_become_rows(tmp_path, monkeypatch):
    runs = tmp_path / "runs"
    write_run(runs / "a", of_size(permute=True), 0.97, epochs=10)
    write_run(runs / "b", of_size("gru", permute=True, seed=1), 0.9, result_last={"test/accuracy": 0.8})
    write_run(runs / "c", of_size(permute=False))
    write_run(runs / "d", configuration("legs", "mnist", permute=True))
    write_run(runs / "e", of_size("lstm", permute=True), smoke_test=True)
    write_run(runs / "f", of_size("lstm", permute=True), status="failed")
    write_run(runs / "g", of_size("lru", "ct", mixer="lru", **strokes(0.5, 1.0)), 0.8)
    write_run(runs / "h", of_size("lru", "ct", mixer="lru", **strokes(0.5, 0.5)), 0.85)
    write_run(runs / "i", of_size("mingru", "ct", mixer="mingru", **strokes(1.0, 0.5)), 0.2)
    found = collect(tmp_path, monkeypatch)
    assert [(row["task"], row["step_size"], row["model"], row["seed"], row["test_accuracy"]) for row in found] == [
        ("CharacterTrajectories, 100 Hz to 100 Hz", "as trained", "lru", "0", "0.85"),
        ("CharacterTrajectories, 100 Hz to 200 Hz", "rescaled", "lru", "0", "0.8"),
        ("CharacterTrajectories, 200 Hz to 100 Hz", "as trained", "mingru", "0", "0.2"),
        ("permuted MNIST", "as trained", "gru", "1", "0.9"),
        ("permuted MNIST", "as trained", "legs", "0", "0.97"),
    ]
    assert (found[-1]["best_epoch"], found[-1]["seconds"], found[-1]["peak_memory_mib"]) == ("10", "7.4", "887.2")
    assert [row["test_accuracy_last_epoch"] for row in found[-2:]] == ["0.8", ""]


def test_new_trials_replace_their_own_rows_alone(tmp_path, monkeypatch):
    write_run(tmp_path / "runs" / "a", of_size(permute=True), 0.97)
    write_run(tmp_path / "runs" / "b", of_size("gru", permute=True), 0.9)
    collect(tmp_path, monkeypatch)
    (tmp_path / "runs").rename(tmp_path / "older")
    write_run(tmp_path / "runs" / "a", of_size(permute=True), 0.98)
    assert {row["model"]: row["test_accuracy"] for row in collect(tmp_path, monkeypatch)} == {"legs": "0.98", "gru": "0.9"}


def test_the_page_has_a_row_for_each_model_or_says_that_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "read", lambda file: [])
    assert SUCCESSORS.markdown().startswith("No trial of this table is in [benchmarks/results/successors/trials.csv]")
    for seed in (0, 1):
        write_run(tmp_path / "runs" / str(seed), of_size(permute=True, seed=seed), 0.97 + seed / 100)
    found = collect(tmp_path, monkeypatch)
    monkeypatch.setattr(trials, "read", lambda file: found)
    assert "| permuted MNIST | legs | as trained | 2 | 0.975 +/- 0.007 |" in SUCCESSORS.markdown()
