"""Rows of the tables of memory, from trials and their evaluations at several lengths."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch
import yaml

from benchmarks import memory
from benchmarks.memory_tasks import MEMORY, UEA, Condition
from benchmarks.pages import trials
from benchmarks.pages.results import MEMORY as PAGE
from seqmem import datasets
from seqmem.cli import commandline
from tests.results.synthetic import write_run
from tests.trials import run_trials

TINY = [
    "model.cell_args.hidden_size=4",
    "train.epochs=1",
    "train.limit_train_batches=1",
    "train.limit_val_batches=1",
    "train.limit_test_batches=1",
    "runner.accelerator=cpu",
    "runner.ntrials=1",
]
BY_NAME = {task.name: task for task in (*MEMORY, *UEA)}


def collect(folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["memory", str(folder / "runs"), "--output", str(folder / "out")])
    memory.main()
    return {name: memory.read(folder / "out" / f"{name}.csv") for name in BY_NAME}


@pytest.mark.parametrize(
    ("name", "conditions"),
    [
        pytest.param("parity", ["at_40", "at_64", "at_128", "at_256"], marks=pytest.mark.slow),
        ("flip_flop", ["p_0.98", "p_0.1"]),
        (
            "group_words_z60",
            ["at_5", "at_40", "test_sequence_accuracy", *(f"at_{length}_sequence_accuracy" for length in (5, 10, 20, 40))],
        ),
    ],
)
def test_a_trial_is_evaluated_once_and_becomes_a_row(name, conditions, tmp_path, monkeypatch):
    config = commandline.compose([f"experiment=memory/{name}", "model=gru", *TINY])
    [folder] = run_trials(config, datasets.load(config["dataset"]), tmp_path / "runs")
    whole = commandline.compose([f"experiment=memory/{name}", "model=gru"])
    (folder.path / "config.yaml").write_text(yaml.safe_dump(whole))
    found = collect(tmp_path, monkeypatch)
    [row] = found.pop(name)
    assert not any(found.values())
    assert (row["model"], row["seed"], row["epochs"], row["best_epoch"]) == ("gru", "0", "1", "1")
    assert list(row) == memory.columns(BY_NAME[name])
    assert all(0 <= float(row[key]) <= 1 for key in conditions)
    if BY_NAME[name].whole:
        assert row["test_sequence_accuracy"] == str(folder.read_record()["result"]["test/sequence_accuracy"])
        assert float(row["at_5_sequence_accuracy"]) <= float(row["at_5"])
    evaluated = {path: path.stat().st_mtime_ns for path in (folder.path / "evaluations").glob("*.json")}
    assert len(evaluated) == len(BY_NAME[name].conditions)
    assert collect(tmp_path, monkeypatch)[name] == [row]
    assert {path: path.stat().st_mtime_ns for path in (folder.path / "evaluations").glob("*.json")} == evaluated


def test_an_evaluation_of_another_number_of_sequences_is_not_in_the_table(tmp_path, monkeypatch):
    config = commandline.compose(["experiment=memory/flip_flop", "model=gru", *TINY])
    [folder] = run_trials(config, datasets.load(config["dataset"]), tmp_path / "runs")
    asked, other = (Condition("at 8", 8, (("test_samples", samples),)) for samples in (3, 4))
    for value, condition in ((0.25, asked), (0.5, other)):
        memory.evaluation(folder.path, condition)
        path = max((folder.path / "evaluations").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"result": record["result"] | {"test/accuracy": value}}))
    assert [memory.evaluation(folder.path, each).value for each in (asked, other)] == [0.25, 0.5]


def test_trials_of_other_settings_and_smoke_tests_are_no_rows(tmp_path, monkeypatch):
    changes = ["seed=3", "dataset.num_workers=1", "runner.accelerator=cpu", "runner.ntrials=1", "output_dir=elsewhere"]
    for experiment, others in {
        "uea/heartbeat": ["dataset.resplit=false", "dataset.problem=BasicMotions", "dataset.split_seed=3", "model.dropout=0.1"],
        "memory/parity": [
            "train.lr=0.1",
            "train.epochs=1",
            "dataset.fresh=false",
            "dataset.test_length=50",
            "model.preset=params_100k",
            "model.cell_args.hidden_size=8",
        ],
    }.items():
        for name, own in enumerate(([], *([each] for each in others))):
            config = commandline.compose([f"experiment={experiment}", "model=lstm", *changes, *own])
            write_run(tmp_path / "runs" / experiment / str(name), config, 0.7)
            write_run(tmp_path / "runs" / experiment / f"{name}_smoke", config, smoke_test=True)
    monkeypatch.setattr(memory, "evaluation", lambda trial, condition: SimpleNamespace(result={"accuracy": 0.5}))
    found = collect(tmp_path, monkeypatch)
    for name in ("heartbeat", "parity"):
        assert [(row["model"], row["seed"], row["test_accuracy"]) for row in found.pop(name)] == [("lstm", "3", "0.7")]
    assert not any(found.values())


def test_a_trial_of_a_table_without_a_result_is_named(tmp_path, monkeypatch, capsys):
    experiment = ["experiment=memory/parity", "model=lstm"]
    for seed, status in enumerate(("finished", "failed", "running", "failed")):
        config = commandline.compose([*experiment, f"seed={seed}"])
        write_run(tmp_path / "runs" / "parity" / f"seed_{seed}", config, status=status, reason="UserError: no")
    write_run(tmp_path / "runs" / "other", commandline.compose([*experiment, "train.lr=0.1"]), status="failed", reason="no")
    write_run(tmp_path / "runs" / "smoke", config, status="failed", reason="no", smoke_test=True)
    (tmp_path / "runs" / "parity" / "seed_1" / "config.yaml").unlink()
    (tmp_path / "runs" / "parity" / "seed_3" / "record.json").write_text("damaged")
    monkeypatch.setattr(memory, "evaluation", lambda trial, condition: SimpleNamespace(result={"accuracy": 0.5}))
    assert [row["seed"] for row in collect(tmp_path, monkeypatch)["parity"]] == ["0"]
    lines = sorted(capsys.readouterr().err.splitlines())
    start = f"warning: not in the table: {tmp_path / 'runs' / 'parity'}"
    assert lines[0] == f"{start}/seed_1: failed, UserError: no"
    assert lines[1].startswith(f"{start}/seed_2: running")
    assert lines[2].startswith(f"{start}/seed_3: ")
    assert len(lines) == 3


def test_new_rows_replace_those_of_the_same_model_and_seed():
    old = [{"model": "lstm", "seed": "10", "x": "1"}, {"model": "lstm", "seed": "2", "x": "2"}]
    new = [{"model": "lstm", "seed": "2", "x": "3"}, {"model": "gru", "seed": "2", "x": "4"}]
    assert [row["x"] for row in memory.merged(old, new)] == ["4", "3", "1"]


def test_the_page_has_a_column_for_each_length(monkeypatch):
    rows = [
        dict.fromkeys(memory.columns(BY_NAME["parity"]), str(seed))
        | {"model": "lstm", "started": "2026-01-02", "commit": "c" * 40}
        for seed in range(3)
    ]
    monkeypatch.setattr(trials, "read", lambda file: rows)
    text = PAGE["parity"].markdown()
    assert "| task | model | n | test accuracy | 95 % interval | at 40 | at 64 | at 128 | at 256 |" in text
    assert "| parity, trained at 1 to 40 bits | lstm | 3 | 1.000 +/- 1.000 |" in text


def test_the_pages_of_words_have_columns_of_whole_words_and_the_level_of_guessing(monkeypatch):
    task = BY_NAME["group_words_a5"]
    rows = [dict.fromkeys(memory.columns(task), "1") | {"model": "lstm", "started": "2026-01-02", "commit": "c" * 40}]
    monkeypatch.setattr(trials, "read", lambda file: rows)
    heading = (
        "| at 40 | whole words | whole words at 5 | whole words at 10 | whole words at 20 | whole words at 40 | validation"
    )
    assert heading in PAGE["group_words_a5"].markdown()
    words = datasets.load({"name": "group_words", "group": "A5", "length": 20})
    batch = words.batch("test", torch.arange(2000))
    guesses = torch.randint(60, batch.targets.shape, generator=torch.Generator().manual_seed(0))
    guesses[:, 0] = batch.inputs[:, 0]
    accuracy = (guesses == batch.targets).double().mean()
    assert accuracy == pytest.approx((1 + 19 / 60) / 20, abs=0.002)
    assert task.level.startswith(f"chance {(1 + 19 / 60) / 20:.3f} ")
