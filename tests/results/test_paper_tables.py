"""Rows of the tables of the papers, from records of trials, and what their pages show."""

import csv
import re
import sys
from dataclasses import replace

import pytest

from benchmarks import output, paper_tables, papers
from benchmarks.entries import Entry
from benchmarks.pages import published, trials
from benchmarks.pages.papers import CHARACTERS, COPYING, IGLOO_MNIST, LONG_RANGE, MACKEY_GLASS, PAPERS, PERMUTED, SEGMENTS
from benchmarks.trial_rows import environment, may_count, read, write
from seqmem.cli import commandline
from tests.cli.choices import choices
from tests.results.synthetic import write_run

FOLDERS = ("hippo/", "hmlstm/", "igloo/", "lmu/")


def config_of(*arguments, seed=0):
    return commandline.compose(arguments) | {"seed": seed}


def collect(folder, monkeypatch, *names):
    """Collect the trials of a folder for the rows of these names alone, since composing a config takes a while."""
    rows = {
        table.file: tuple(each for each in table.entries if " ".join((each.experiment, *each.changes)) in names)
        for table in paper_tables.TABLES
    }
    monkeypatch.setattr(papers, "TABLES", [replace(table, entries=rows[table.file]) for table in paper_tables.TABLES])
    monkeypatch.setattr(sys, "argv", ["papers", str(folder / "runs"), "--output", str(folder / "out")])
    papers.main()
    return {table.file: papers.read(folder / "out" / table.file) for table in paper_tables.TABLES}


def test_every_experiment_of_a_paper_is_a_row_of_one_table():
    rows = [(entry.experiment, entry.changes) for table in paper_tables.TABLES for entry in table.entries]
    assert len(rows) == len(set(rows))
    assert {name for name, _ in rows} | {"igloo/copy_memory"} == {
        name for name in choices("experiment") if name.startswith(FOLDERS)
    }


def test_trials_become_rows_of_their_experiment(tmp_path, monkeypatch, capsys):
    runs = tmp_path / "runs"
    write_run(runs / "a", config_of("experiment=hippo/ct_100to200_mgu", seed=2), 0.25, result_last={"test/accuracy": 0.2})
    write_run(runs / "b", config_of("experiment=hippo/ct_dropped_upsample_tlsi"), 0.9)
    write_run(runs / "c", config_of("experiment=hippo/pmnist_rnn", "scale=small"), 0.5)
    write_run(runs / "d", config_of("experiment=hippo/pmnist_rnn"), 0.6)
    write_run(
        runs / "e", config_of("experiment=igloo/copy_memory_table", "dataset.length=1000", "model=gru", "train.lr=0.001"), 0.1
    )
    rates = {"test/mse": 0.3, "val/mse": 0.4, "test/boundary_rate_1": 0.07}
    write_run(runs / "f", config_of("experiment=hmlstm/sinusoids_hmlstm"), metric="mse", best="min", result=rates)
    write_run(runs / "g", config_of("experiment=hippo/ct_100to200_mgu", "model.cell_args.hidden_size=8"))
    write_run(runs / "h", config_of("experiment=hippo/ct_100to200_mgu", seed=1), smoke_test=True, status="failed")
    write_run(runs / "i", config_of("experiment=hippo/ct_100to200_mgu", "smoke_test=true", seed=1))
    write_run(runs / "k", config_of("experiment=hippo/ct_100to200_mgu", seed=4), status="failed", reason="no")
    for seed in (0, 1):
        config = config_of("experiment=hippo/function_approximation_legs", seed=seed)
        config["model"]["cell"] = "none"
        write_run(runs / f"j{seed}", config, metric="mse", parameters=0)
    names = [
        "hippo/function_approximation_legs",
        "hippo/ct_100to200_mgu",
        "hippo/ct_dropped_upsample_tlsi",
        "hippo/pmnist_rnn scale=small",
        "hippo/pmnist_rnn",
    ]
    names += ["hmlstm/sinusoids_hmlstm"]
    names += [f"igloo/copy_memory_table dataset.length=1000 model=gru{rate}" for rate in ("", " train.lr=0.001")]
    found = collect(tmp_path, monkeypatch, *names)
    shown = capsys.readouterr()
    assert "3 other finished trials" in shown.out
    assert shown.err == f"warning: not in the table: {runs / 'k'}: failed, no\n"
    kept = [(row["experiment"], row["changes"], row["seed"], row["test"]) for table in found.values() for row in table]
    assert kept == [
        ("hippo/pmnist_rnn", "scale=small", "0", "0.5"),
        ("hippo/pmnist_rnn", "", "0", "0.6"),
        ("hippo/ct_100to200_mgu", "", "2", "0.25"),
        ("hippo/ct_dropped_upsample_tlsi", "", "0", "0.9"),
        ("hippo/function_approximation_legs", "", "0", "0.5"),
        ("hmlstm/sinusoids_hmlstm", "", "0", "0.3"),
        ("igloo/copy_memory_table", "dataset.length=1000 model=gru train.lr=0.001", "0", "0.1"),
    ]
    [row, _] = found[paper_tables.TABLE_2.file]
    assert (row["command"], row["test_last_epoch"]) == (
        "OMP_NUM_THREADS=1 python train.py experiment=hippo/ct_100to200_mgu seed=2 runner.ntrials=1",
        "0.2",
    )
    assert row["trained_by"] == "train.py model=mgu runner.ntrials=3"  # as synthetic records have it
    assert (row["processor"], row["threads"], row["torch"]) == ("Intel(R) Xeon(R) Processor", "1", "2.14.1")
    assert found[paper_tables.HMLSTM.file][0]["boundary_rate_1"] == "0.07"


def test_new_trials_replace_their_own_rows_alone():
    entries = (Entry("b"), Entry("a"))
    table = paper_tables.Table("x.csv", entries)
    old = [{"experiment": name, "changes": "", "seed": "10", "test": "1"} for name in ("a", "b")]
    new = [{"experiment": "a", "changes": "", "seed": seed, "test": "2"} for seed in ("10", "9")]
    rows = papers.merged(table, old, new)
    assert [(row["experiment"], row["seed"], row["test"]) for row in rows] == [
        ("b", "10", "1"),
        ("a", "9", "2"),
        ("a", "10", "2"),
    ]
    assert table.waiting(old[:1]) == ["b"]


def test_an_older_trial_does_not_replace_a_kept_row(capsys):
    table = paper_tables.Table("x.csv", (Entry("a"),))
    row = {"experiment": "a", "changes": "", "seed": "0", "test": "0.93", "started": "2026-01-02T00:00:00+00:00"}
    older, newer = row | {"test": "0.1", "started": "2020-01-01T00:00:00+00:00"}, row | {"test": "0.9", "started": "2026-02-01"}
    assert papers.merged(table, [row], [older]) == [row]
    assert "left out: a trial of 2020-01-01" in capsys.readouterr().out
    assert papers.merged(table, [row], [newer]) == [newer]
    assert capsys.readouterr().out == "replaced: ('a', '', 0)\n"


def test_trials_on_other_files_devices_or_operators_do_not_count():
    config = {"smoke_test": False, "runner": {"devices": 1}}
    record = {"smoke_test": False, "dataset": "ct", "backend": "cpu compiled"}
    assert may_count(record, config)
    for wrong in ({"dataset": "ct other files"}, {"backend": "cpu reference"}, {"smoke_test": True}):
        assert not may_count(record | wrong, config)
    assert not may_count(record, config | {"runner": {"devices": 2}})


def test_one_batch_is_not_all_of_them():
    entry, config = Entry("hippo/ct_100to200_legs"), config_of("experiment=hippo/ct_100to200_legs")
    assert entry.has(config)
    config["train"]["limit_train_batches"] = 1
    assert not entry.has(config)


def test_a_row_that_does_not_fit_leaves_the_file(tmp_path):
    path = tmp_path / "kept.csv"
    write(path, ["model"], [{"model": "legs"}])
    with pytest.raises(ValueError, match="old"):
        write(path, ["model"], [{"model": "legs", "old": "1"}])
    assert read(path) == [{"model": "legs"}]


@pytest.mark.parametrize("table", paper_tables.TABLES, ids=lambda table: table.file)
def test_kept_files_have_the_columns_and_the_order_of_their_table(table):
    with open(output.RESULTS / table.file, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert reader.fieldnames == papers.columns(table)
    assert papers.merged(table, [], rows) == rows
    for row in rows:
        entry = Entry(row["experiment"], tuple(row["changes"].split()))
        assert entry in table.entries
        assert row["command"] == environment(row["processor"], row["threads"]) + entry.command(int(row["seed"]))
        assert all(row[key] for key in ("commit", "processor", "torch", "started"))
        assert float(row["seconds"]) > 0


def row_of(experiment, model, changes="", **values):
    columns = dict.fromkeys((*papers.FIRST, *paper_tables.HMLSTM.extras, *papers.LAST), "1")
    return (
        columns | {"experiment": experiment, "model": model, "changes": changes, "seed": "0", "started": "2026-01-02"} | values
    )


def shown(table, monkeypatch, *rows):
    monkeypatch.setattr(trials, "read", lambda file: list(rows))
    return table.markdown()


def test_rows_have_the_published_value_of_their_own_model(monkeypatch):
    mgu = [row_of("hippo/ct_100to200_mgu", "mgu", seed=str(seed), test=f"0.2{seed}") for seed in range(3)]
    dropped = [row_of(f"hippo/ct_dropped_upsample_{model}", model) for model in ("tlsi", "lmu_plain")]
    text = shown(CHARACTERS, monkeypatch, *mgu, row_of("hippo/ct_100to200_gru", "gru"), *dropped)
    assert re.search(r"\| 100 Hz to 200 Hz \|.*in training.*\| mgu \| GRU \| 3 \| 0\.210 .*\| 0\.254, above \|", text)
    assert re.search(r"\| 100 Hz to 200 Hz \|.*\| gru \| none \| 1 \| 1\.000 \|  \| 1\.000 \|", text)
    assert "| points dropped, upsample | a random half of the steps is dropped in training | lmu_plain | none | 1 |" in text
    assert "`hippo/ct_200to100_mgu`" in text
    assert "`hippo/ct_100to200_mgu`" not in text
    text = shown(
        PERMUTED, monkeypatch, row_of("hippo/pmnist_rand", "legsn", "scale=small"), row_of("hippo/recipe_pmnist_legs", "legs")
    )
    assert "| 128 units, 10 epochs | rand | legsn | 1 | 1.0000 | 1.0000 | 0.6993 |" in text
    assert "| 512 units, this project's recipe | legs | legs | 1 | 1.0000 | 1.0000 | 0.9834 |" in text
    text = shown(LONG_RANGE, monkeypatch, row_of("hippo/imdb_rnn", "rnn"), row_of("hippo/copying_rnn", "rnn"))
    assert re.search(r"IMDB.*\| rnn \| 1 \| 1\.0000 \| 1\.0000 \| 0\.674 \|", text)
    text = shown(
        MACKEY_GLASS, monkeypatch, row_of("lmu/mackey_glass_lmu_plain", "lmu_plain"), row_of("lmu/mackey_glass_legs", "legs")
    )
    assert "| 15 steps ahead | lmu_plain | 1 | 1.0000 | 0.0487 |" in text
    assert "| 15 steps ahead | legs | 1 | 1.0000 |  |" in text
    assert "| 0.9840 |" in shown(IGLOO_MNIST, monkeypatch, row_of("igloo/pmnist", "igloo"))


def test_every_row_that_can_be_trained_has_a_name_on_its_page(monkeypatch):
    for page, table in ((SEGMENTS, paper_tables.HMLSTM), (COPYING, paper_tables.IGLOO), (CHARACTERS, paper_tables.TABLE_2)):
        rows = []
        for entry in table.entries:
            model = entry.experiment.rpartition("_")[2] if not entry.changes else entry.changes[1].removeprefix("model=")
            name = {"plain": "lmu_plain", "layers": "lstm"}.get(model, model)
            rows.append(row_of(entry.experiment, name, " ".join(entry.changes)))
        text = shown(page, monkeypatch, *rows)
        assert text.count("| 1 |") >= len(table.entries)
        assert "without a trial" not in text


def test_a_table_without_a_trial_says_so(monkeypatch):
    for page in PAPERS:
        assert shown(page, monkeypatch).startswith("No trial of this table is in ")


def test_rows_of_one_model_are_told_apart_on_the_pages_of_models(monkeypatch):
    names = {"legt_theta200": "legt", "legt_theta20": "legt", "legs": "legs"}
    rows = [row_of(f"hippo/pmnist_{name}", model, "scale=small", validation="0.5") for name, model in names.items()]
    rows.append(row_of("hippo/recipe_pmnist_legs", "legs", validation="0.6"))
    monkeypatch.setattr(trials, "read", lambda file: rows)
    found = [(row.title(), row.comparison()) for row in PERMUTED.rows()]
    size, legt = "permuted MNIST, 128 units, 10 epochs, validation accuracy", ("legt_theta200", "legt_theta20")
    assert found[:2] == [(f"{size} ({name})", "legs 0.5000, chance 0.100") for name in legt]
    assert found[2] == (size, f"legt ({legt[0]}) 0.5000, legt ({legt[1]}) 0.5000, chance 0.100")
    assert found[3][0] == "permuted MNIST, 512 units, this project's recipe, validation accuracy"


def test_other_models_with_other_settings_than_the_title_are_marked(monkeypatch):
    changes = "dataset.length=1000 model=gru"
    rows = [row_of("igloo/copy_memory_table", model, f"dataset.length=1000 model={model}") for model in ("igloo", "tcn")]
    rows.append(row_of("igloo/copy_memory_table", "gru", f"{changes} train.lr=0.001", test="0.5"))
    monkeypatch.setattr(trials, "read", lambda file: rows)
    assert [row.comparison() for row in COPYING.rows()] == [
        "tcn 1.000, gru (0.001) 0.500, chance 0.125",
        "igloo 1.000, gru (0.001) 0.500, chance 0.125",
        "igloo (0.01) 1.000, tcn (0.01) 1.000, chance 0.125",
    ]


def test_every_page_names_its_rows_without_a_trial():
    files = {table.file: table for table in paper_tables.TABLES}
    for page in PAPERS:
        assert len(page.waiting([])) == len(files[page.file].entries)
    [trial] = [entry for entry in paper_tables.IGLOO.entries if entry.changes == ("dataset.length=10000", "model=tcn")]
    waiting = COPYING.waiting([row_of(trial.experiment, "tcn", " ".join(trial.changes))])
    assert "igloo/copy_memory_table dataset.length=10000 model=gru" in waiting
    assert not any("10000 model=tcn" in name for name in waiting)


def test_a_published_percentage_is_shown_as_a_fraction():
    trial = {"experiment": "hippo/pmnist_legs", "model": "legs"}
    assert published.value("HiPPO", "abstract", trial) == "0.983"
    assert published.value("HiPPO", "1", trial) == "0.9834"
    assert published.value("HiPPO", "1", {**trial, "model": "tcn"}) == ""
