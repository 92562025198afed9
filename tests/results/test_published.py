"""Comparison with published values: matching rows and differences."""

import csv
import math
import re

import pytest

from benchmarks import output, paper_tables
from benchmarks.pages import published as published_on_pages
from seqmem import results
from seqmem.cli import commandline, report
from seqmem.errors import UserError
from seqmem.results.published import columns, compare, read_published, with_published
from seqmem.results.table import cells
from tests.results.synthetic import configuration, write_run

HEADER = "paper,table,task,model,metric,value,source\n"


def published(folder, *lines):
    path = folder / "published.csv"
    path.write_text(HEADER + "".join(f"HiPPO,2,{line},unverified\n" for line in lines))
    return read_published(path)


def groups_of(folder):
    return results.group_trials(results.find_runs(folder))


def test_a_percentage_is_compared_with_our_fraction(tmp_path):
    for seed, test in enumerate([0.97, 0.98, 0.99]):
        write_run(
            tmp_path / str(seed), configuration("legs", "mnist", seed=seed, permute=True, permutation="bitreversal"), test
        )
    values = published(tmp_path, "permuted MNIST,legs,test accuracy (%),98.3", "permuted MNIST,legs,validation accuracy (%),90")
    test, validation = compare(values, groups_of(tmp_path))
    assert (test.row, test.n, test.mean, test.deviation) == (0, 3, pytest.approx(0.98), pytest.approx(0.01))
    assert test.difference == pytest.approx(-0.003)
    assert test.note == ""
    assert validation.published.split == "val"
    table = cells(with_published(results.summarize(groups_of(tmp_path)), [test, validation]))
    assert (table["published test"], table["test difference"]) == (["0.9830"], ["-0.0030"])
    assert table["published validation"] == ["0.9000"]


def test_of_several_values_the_first_is_in_the_table_and_all_are_in_the_list(tmp_path):
    write_run(tmp_path / "a", configuration("legs"), 0.9)
    write_run(tmp_path / "b", configuration("lstm"), 0.8)
    values = published(tmp_path, "digits,legs,accuracy,0.5", "Digits,LegS,accuracy,0.6")
    found = compare(values, groups_of(tmp_path))
    assert [(each.row, each.difference) for each in found] == [(0, pytest.approx(0.4)), (0, pytest.approx(0.3))]
    summary = with_published(results.summarize(groups_of(tmp_path)), found)
    assert summary["published_test"][0] == 0.5
    assert math.isnan(summary["published_test"][1])


def test_a_value_without_a_match_has_a_reason(tmp_path):
    write_run(tmp_path / "a", configuration("legs"))
    write_run(tmp_path / "b", configuration("lstm"), status="failed")
    write_run(tmp_path / "c", configuration("legs", "mnist", permute=False))
    for line, note in [
        ("enwik8,hmlstm,bits per character,1.3", "no run on this task"),
        ("permuted MNIST,legs,accuracy,0.9", "no run on this task"),
        ("digits,gru-d,accuracy,0.9", "no run of this model on this task"),
        ("digits,legs,bits per character,1", "runs record accuracy"),
        ("digits,lstm,accuracy,0.9", "no run has finished"),
        ("digits,legs,elements per second,1", "runs do not record this metric"),
    ]:
        [alone] = compare(published(tmp_path, line), groups_of(tmp_path))
        assert (alone.row, alone.note) == (None, note)
        assert math.isnan(alone.difference)


def test_a_run_on_a_part_of_the_data_has_a_note(tmp_path):
    config = configuration("legs", train_samples=100)
    config["train"] |= {"limit_test_batches": 1, "limit_val_batches": 0.5}
    write_run(tmp_path / "a", {**config, "smoke_test": True})
    [found] = compare(published(tmp_path, "digits,legs,accuracy,0.9"), groups_of(tmp_path))
    assert found.note == "smoke_test=True, dataset.train_samples=100, train.limit_val_batches=0.5, train.limit_test_batches=1"


@pytest.mark.parametrize(
    "metric", ["test accuracy (%)", "test accuracy %", "accuracy(%)", "accuracy [%]", "Test accuracy (%)", "% test accuracy"]
)
def test_a_percentage_may_be_written_in_any_way(tmp_path, metric):
    [found] = published(tmp_path, f"digits,legs,{metric},96.2")
    assert (found.value, found.split, found.name) == (pytest.approx(0.962), "test", "accuracy")
    write_run(tmp_path / "a", configuration("legs"), 0.9)
    compared = columns(compare([found], groups_of(tmp_path)), groups_of(tmp_path))
    assert (compared["published"], compared["difference"]) == (["0.9620"], ["-0.0620"])
    assert "%" not in compared["published metric"][0]


def test_the_split_does_not_depend_on_case(tmp_path):
    [found] = published(tmp_path, "digits,legs,Validation accuracy,0.9")
    assert (found.value, found.split, found.name) == (0.9, "val", "accuracy")


@pytest.mark.parametrize(("metric", "value"), [("test accuracy", "96.2"), ("accuracy (%)", "105"), ("accuracy", "nan")])
def test_an_accuracy_that_is_not_a_fraction_is_refused(tmp_path, metric, value):
    with pytest.raises(
        UserError, match=rf"line 2: value: got {value} of '{re.escape(metric)}', expected an accuracy from 0 to"
    ):
        published(tmp_path, f"digits,legs,{metric},{value}")


_of_experiments = {
    "hippo/pmnist_legs": [0.9834, 0.983],
    "hippo/short_pmnist_legs": [0.9834, 0.983],
    "hippo/recipe_pmnist_legs": [0.9834, 0.983],
    "hippo/pmnist_lagt": [0.9815],
    "hippo/pmnist_legt_theta200": [0.98],
    "hippo/pmnist_legt_theta20": [0.9175],
    "hippo/pmnist_rand": [0.6993],
    "hippo/pmnist_lmu": [0.9708],
    "hippo/pmnist_exprnn": [0.9467],
    "hippo/pmnist_gru": [0.9304],
    "hippo/pmnist_mgu": [0.8937],
    "hippo/pmnist_rnn": [0.5298],
    "hippo/ct_100to200_legs": [0.888],
    "hippo/ct_100to200_mgu": [0.254],
    "hippo/ct_100to200_lstm": [0.319],
    "hippo/ct_100to200_lmu": [0.06],
    "hippo/ct_200to100_legs": [0.901],
    "hippo/ct_200to100_mgu": [0.646],
    "hippo/ct_200to100_lstm": [0.282],
    "hippo/ct_200to100_lmu": [0.131],
    "hippo/ct_upsample_tlsi": [0.945],
    "hippo/ct_upsample_mgu": [0.282],
    "hippo/ct_upsample_lstm": [0.244],
    "hippo/ct_upsample_lmu": [0.393],
    "hippo/ct_downsample_tlsi": [0.949],
    "hippo/ct_downsample_mgu": [0.273],
    "hippo/ct_downsample_lstm": [0.349],
    "hippo/ct_downsample_lmu": [0.678],
    "hippo/function_approximation_legs": [0.02],
    "hippo/function_approximation_lmu": [0.05],
    "hippo/function_approximation_lstm": [0.25],
    "hippo/imdb_legs": [0.88],
    "hippo/imdb_lmu": [0.877],
    "hippo/imdb_lstm": [0.873],
    "hippo/imdb_exprnn": [0.843],
    "hippo/imdb_rnn": [0.674],
    "hmlstm/text8_hmlstm": [1.29],
    "igloo/pmnist": [0.984],
    "lmu/mackey_glass_lmu_plain": [0.04873],
    "lmu/mackey_glass_lstm": [0.05872],
    "lmu/mackey_glass_lmu_plain_lstm": [0.04473],
}


def test_each_experiment_of_the_papers_has_its_published_value_in_report_and_pages(tmp_path):
    """The experiments that are not listed have none."""
    metrics = {"white_noise": "mse", "mackey_glass": "nrmse", "text8": "bpc"}
    entries = [entry for table in paper_tables.TABLES for entry in table.entries if not entry.changes]
    for entry in entries:
        config = commandline.compose([f"experiment={entry.experiment}"]) | {"seed": 0}
        write_run(tmp_path / entry.experiment, config, epochs=1, metric=metrics.get(config["dataset"]["name"], "accuracy"))
    groups, found = groups_of(tmp_path), {entry.experiment: [] for entry in entries}
    for each in compare(read_published(output.RESULTS / "published.csv"), groups):
        if each.row is not None:
            for run in groups[each.row].runs:
                experiment = run.folder.path.relative_to(tmp_path).as_posix()
                found[experiment].append(each.published.value)
                paper, trial = each.published.paper.partition(" (")[0], {"experiment": experiment, "model": run.record["model"]}
                shown = published_on_pages.value(paper, each.published.table, trial)
                assert float(shown) == pytest.approx(each.published.value)
    assert {name: values for name, values in found.items() if values} == {
        name: pytest.approx(values) for name, values in _of_experiments.items()
    }


def test_a_name_means_what_its_table_says(tmp_path):
    """The GRU of HiPPO's table 2 is the minimal gated unit; the pixels of permuted MNIST have an order in each paper."""
    shift = {"train_hz": 0.5, "eval_hz": 1.0, "train_uniform": True, "eval_uniform": True, "timestamp": False}
    for k, (model, dataset, settings) in enumerate(
        [
            ("gru", "ct", shift),
            ("mgu", "ct", shift),
            ("lmu", "mnist", {"permute": True, "permutation": "nru"}),
            ("lmu_plain", "mnist", {"permute": True, "permutation": "bitreversal"}),
            ("lmu_plain", "mnist", {"permute": True, "permutation": "nru"}),
        ]
    ):
        config = configuration(model, dataset, **settings)
        config["model"]["cell_args"]["gate"] = "N" if model == "lmu_plain" else "G"
        write_run(tmp_path / str(k), config, started=f"2026-01-0{k + 1}")
    groups = groups_of(tmp_path)
    for names, model, task, rows in [
        ("HiPPO (arXiv),2", "gru", "CharacterTrajectories 100Hz to 200Hz", {"1"}),
        (",", "gru", "CharacterTrajectories 100Hz to 200Hz", {"0"}),
        ("HiPPO,Table 1", "lmu", "permuted MNIST", {"3"}),
        ("LMU (NeurIPS 2019),psMNIST", "lmu", "permuted MNIST", {"4"}),
        (",", "lmu_plain", "permuted MNIST", {"3", "4"}),
    ]:
        path = tmp_path / "published.csv"
        path.write_text(f"{HEADER}{names},{task},{model},accuracy,0.5,\n")
        assert {groups[each.row].runs[0].folder.path.name for each in compare(read_published(path), groups)} == rows


def test_columns_and_values_that_are_wrong_are_named(tmp_path):
    path = tmp_path / "values.csv"
    path.write_text("task,modell,metric,value\n")
    with pytest.raises(UserError, match=r"values\.csv: there is no column 'model'; did you mean 'modell'\?"):
        read_published(path)
    path.write_text("task,model,metric,value\na,b,accuracy,1\na,b,accuracy,about 5\n")
    with pytest.raises(UserError, match=r"values\.csv, line 3: value: got 'about 5', expected a number"):
        read_published(path)
    with pytest.raises(UserError, match=r"cannot read .*nowhere\.csv"):
        read_published(tmp_path / "nowhere.csv")


def test_all_published_values_are_in_every_file_of_the_comparison(tmp_path):
    write_run(tmp_path / "a", configuration("legs"), 0.9)
    published(tmp_path, "digits,legs,test accuracy (%),88.5", "enwik8,hmlstm,bits per character,1.34")
    report.main([str(tmp_path), "--against", str(tmp_path / "published.csv"), "--out", str(tmp_path / "out")])
    matched, alone = csv.DictReader((tmp_path / "out" / "comparison.csv").read_text().splitlines())
    assert (matched["published"], matched["ours"], matched["difference"], matched["source"]) == (
        "0.8850",
        "0.9000",
        "+0.0150",
        "unverified",
    )
    assert matched["published metric"] == "test accuracy"
    assert (alone["task"], alone["ours"], alone["note"]) == ("enwik8", "-", "no run on this task")
    for name in ("table.txt", "table.md", "report.html"):
        text = (tmp_path / "out" / name).read_text()
        assert "+0.0150" in text, name
        assert "enwik8" in text, name
    assert "$+$0.0150" in (tmp_path / "out" / "table.tex").read_text()
