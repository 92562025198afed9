"""From records to a table, with records written by hand."""

import math

import pandas as pd
import pytest
import torch
import yaml

from seqmem import results
from seqmem.results.evaluations import by_class, changes, side_by_side
from seqmem.results.formats import markdown
from seqmem.results.plots import plot_bars
from seqmem.results.record import RunFolder, digest
from seqmem.results.table import cells, spread_of


def write_run(folder, model, seed, test, val, status="finished", lr=0.1, metric="accuracy", dataset="signs"):
    run = RunFolder(folder / f"{model}_{lr}" / f"trial_{seed}")
    run.path.mkdir(parents=True)
    config = {"model": {"cell": model, "cell_args": {"hidden_size": 4}}, "train": {"lr": lr}, "dataset": {"name": dataset}}
    run.write_config({**config, "seed": seed, "runner": {"ntrials": 3}})
    record = {
        "status": status,
        "group": digest({**config, "seed": seed, "runner": {"ntrials": 3}}),
        "dataset": dataset,
        "model": model,
        "seed": seed,
    }
    if status == "finished":
        record |= {
            "metric": metric,
            "best": "max",
            "result": {f"val/{metric}": val, f"test/{metric}": test, "test/loss": 0.3},
            "best_epoch": 1,
            "epochs": 2,
            "seconds": 2.0,
            "sequences_per_second": 1000.0,
            "peak_memory_mib": 100.0,
            "parameters": 1234,
        }
        run.write_metrics([{"epoch": epoch, f"val/{metric}": val - 0.1 * (1 - epoch)} for epoch in (0, 1)])
    run.write_record(record)


def test_mean_sample_deviation_and_count(tmp_path):
    for seed, test in enumerate([0.7, 0.8, 0.9]):
        write_run(tmp_path, "legs", seed, test, 0.5)
    write_run(tmp_path, "lstm", 0, 0.6, 0.55)
    summary = results.summarize(results.group_trials(results.find_runs(tmp_path))).set_index("model")
    assert summary.loc["legs", "n"] == 3
    assert summary.loc["legs", "test_mean"] == pytest.approx(0.8)
    assert summary.loc["legs", "test_std"] == pytest.approx(0.1)
    assert summary.loc["legs", "best_epoch"] == 2
    assert summary.loc["lstm", "n"] == 1
    assert pd.isna(summary.loc["lstm", "test_std"])


def test_models_of_equal_name_are_distinguished_by_their_settings(tmp_path):
    write_run(tmp_path, "legs", 0, 0.7, 0.5, lr=0.1)
    write_run(tmp_path, "legs", 1, 0.7, 0.5, lr=0.1)
    write_run(tmp_path, "legs", 0, 0.9, 0.5, lr=0.2)
    write_run(tmp_path, "lstm", 0, 0.9, 0.5, lr=0.3)
    models = [group.model for group in results.group_trials(results.find_runs(tmp_path))]
    assert models == ["legs (train.lr=0.1)", "legs (train.lr=0.2)", "lstm"]


def test_the_irreducible_error_has_a_column(tmp_path):
    write_run(tmp_path / "a", "lstm", 0, 0.4, 0.5, metric="mse", dataset="waves")
    write_run(tmp_path / "b", "lstm", 0, 0.3, 0.35, metric="mse", dataset="plain")
    [waves] = (run for run in results.find_runs(tmp_path) if run.record["dataset"] == "waves")
    waves.folder.write_record(waves.record | {"irreducible_error": 0.25})
    summary = results.summarize(results.group_trials(results.find_runs(tmp_path)))
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown(cells(summary)).splitlines()]
    assert header[3:6] == ["test mse", "irreducible mse", "validation mse"]
    assert {row[0]: row[4] for row in rows} == {"waves": "0.2500", "plain": "-"}


def test_trials_that_did_not_finish_are_counted_not_dropped(tmp_path, capsys):
    write_run(tmp_path, "legs", 0, 0.7, 0.5)
    write_run(tmp_path, "legs", 1, 0.0, 0.0, status="failed")
    write_run(tmp_path, "lstm", 0, 0.0, 0.0, status="failed")
    results.report(tmp_path)
    text = (tmp_path / "table.md").read_text()
    header, _, legs, lstm = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in text.splitlines()]
    assert header[3] == "not finished"
    assert legs[1:4] == ["legs", "1", "1 failed"]
    assert lstm[1:5] == ["lstm", "0", "1 failed", "-"]


def test_report_writes_table_and_picture(tmp_path, capsys):
    for seed, test in enumerate([0.7123, 0.8123]):
        write_run(tmp_path, "legs", seed, test, 0.5)
    results.report(tmp_path)
    shown = capsys.readouterr().out
    assert "0.7623 +/- 0.0707" in shown
    assert "0.7623 +/- 0.0707" in (tmp_path / "table.md").read_text()
    assert pd.read_csv(tmp_path / "table.csv")["test_mean"].iloc[0] == pytest.approx(0.7623)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "curves.png").stat().st_size > 5000


def test_without_training_there_is_no_curve(tmp_path, capsys):
    write_run(tmp_path, "legs", 0, 0.7, 0.5)
    [run] = results.find_runs(tmp_path)
    run.folder.write_record({**run.record, "epochs": 0, "best_epoch": -1, "sequences_per_second": None})
    (run.folder.path / "metrics.csv").unlink()
    results.report(tmp_path)
    assert "curves.png" not in capsys.readouterr().out
    assert not (tmp_path / "curves.png").exists()


MACHINES = {"A": {"processor": "A", "threads": 1}, "B": {"processor": "B", "threads": 1}, "": None}


@pytest.mark.parametrize(
    ("machines", "timed", "shown"),
    [
        (["A", "A", "B"], [0, 1], "A, 1 thread"),
        (["A", "moved", "moved"], [0], "A, 1 thread"),  # those that resumed on a different machine do not share one
        (["moved", "moved"], [], "several machines"),
        (["", "", "A"], [2], "A, 1 thread"),
        (["", "moved", ""], [0, 2], ""),
    ],
)
def test_times_are_of_one_known_machine(tmp_path, machines, timed, shown):
    for seed, name in enumerate(machines):
        write_run(tmp_path, "legs", seed, 0.7, 0.5)
        folder = RunFolder(tmp_path / "legs_0.1" / f"trial_{seed}")
        machine = MACHINES.get(name, MACHINES["B"])
        earlier = [MACHINES["A"]] if name == "moved" else []
        folder.write_record({**folder.read_record(), "machine": machine, "earlier_machines": earlier, "seconds": 10.0**seed})
    [row] = results.group_trials(results.find_runs(tmp_path))
    assert [run.record["seed"] for run in row.timed] == timed
    summary = results.summarize([row])
    [values] = summary.to_dict("records")
    assert (values["machine"], values["timed"]) == (shown, len(timed))
    if not timed:
        assert all(math.isnan(values[name]) for name in ("seconds", "sequences_per_second", "peak_memory_mib"))
        assert cells(summary)["machine"] == ["several machines (seconds of 0 of 2 trials)"]
        assert cells(summary)["seconds"] == ["-"]


def test_a_mean_that_is_not_finite_says_of_how_many_trials(tmp_path):
    for seed, test in enumerate([0.7, math.nan, 0.9]):
        write_run(tmp_path, "legs", seed, test, 0.5)
    write_run(tmp_path, "gru", 0, math.inf, 0.5)
    write_run(tmp_path, "rnn", 0, 0.8, 0.5)
    write_run(tmp_path, "lstm", 0, 0.0, 0.0, status="failed")
    groups = results.group_trials(results.find_runs(tmp_path))
    table = cells(results.summarize(groups))
    assert dict(zip(table["model"], table["test accuracy"], strict=True)) == {
        "legs": "nan (1 of 3 not finite)",
        "gru": "inf (1 of 1 not finite)",
        "rnn": "0.8000",
        "lstm": "-",
    }
    assert spread_of([0.7, 0.9]) == "0.8000 +/- 0.1414"
    assert spread_of([-math.inf, 0.9]) == "-inf (1 of 2 not finite)"
    [axis] = plot_bars(groups).axes
    assert axis.get_title() == "signs, 2 rows without a finite mean"


def test_different_metrics_are_named_row_by_row(tmp_path):
    write_run(tmp_path, "legs", 0, 0.7, 0.5)
    write_run(tmp_path, "gru", 0, 0.2, 0.3, metric="mse", dataset="sums")
    table = markdown(cells(results.summarize(results.group_trials(results.find_runs(tmp_path)))))
    assert "| metric |" in table
    assert "| sums | gru | mse |" in table


def test_metrics_of_an_evaluation_are_aligned():
    assert by_class(torch.tensor([[5, 1], [0, 12]])).splitlines() == [
        "class  targets  correct  predictions",
        "0            6        5            5",
        "1           12       12           13",
    ]
    assert side_by_side({"test/mse": 0.5}, {"test/mse": 0.25}).splitlines() == [
        "     now  in training",
        "mse  0.5         0.25",
    ]


def test_changes_of_a_config_are_compared_as_written():
    before, after = {"train": {"limit_test_batches": 1.0, "lr": 0.1}}, {"train": {"limit_test_batches": 1, "epochs": 2}}
    assert changes(before, after) == {
        "train.limit_test_batches": (1.0, 1),
        "train.lr": (0.1, None),
        "train.epochs": (None, 2),
    }
    whole = {"model": {"expansion": 3, "bias": True}, "train": {"limit_val_batches": 1}}
    float_ = {"model": {"expansion": 3.0, "bias": True}, "train": {"limit_val_batches": 1.0}}
    assert changes(whole, float_) == {"train.limit_val_batches": (1, 1.0)}


def test_digest_ignores_the_order_of_keys():
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_config_survives_a_round_trip(tmp_path):
    run = RunFolder(tmp_path)
    config = {"lr": 1e-3, "none": None, "list": [1, 2], "text": "yes"}
    run.write_config(config)
    assert run.read_config() == config
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == config
