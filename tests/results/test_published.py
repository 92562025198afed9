"""Comparison with published values: matching rows and differences."""

import csv
import math
import shutil

import pytest

from seqmem import results
from seqmem.cli import report
from seqmem.errors import UserError
from seqmem.results.published import compare, read_published, with_published
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
        write_run(tmp_path / str(seed), configuration("legs", "mnist", seed=seed, permute=True), test)
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
    config["train"]["limit_test_batches"] = 1
    write_run(tmp_path / "a", {**config, "smoke_test": True})
    [found] = compare(published(tmp_path, "digits,legs,accuracy,0.9"), groups_of(tmp_path))
    assert found.note == "smoke_test=True, dataset.train_samples=100, train.limit_test_batches=1"


_of_experiments = {
    "pmnist_rand": ("mnist", "legsn", "permuted MNIST,rand"),
    "pmnist_legt_theta20": ("mnist", "legt", "permuted MNIST,legt_theta20"),
    "pmnist_legt_theta200": ("mnist", "legt", "permuted MNIST,legt_theta200"),
    "ct_100to200_legs": ("ct", "legs", "CharacterTrajectories 100Hz to 200Hz,legs (tlsi where times are given)"),
    "ct_200to100_legs": ("ct", "legs", "CharacterTrajectories 200Hz to 100Hz,legs (tlsi where times are given)"),
    "ct_upsample_tlsi": ("ct", "tlsi", "CharacterTrajectories missing values upsample,legs (tlsi where times are given)"),
    "ct_downsample_tlsi": ("ct", "tlsi", "CharacterTrajectories missing values downsample,legs (tlsi where times are given)"),
    "function_approximation_legs": ("white_noise", "legs", '"function approximation, 10^6 steps, order 256",legs'),
}


def test_the_rows_of_the_paper_are_those_of_the_experiments(tmp_path, repository):
    """The settings of each experiment match its own row of the paper and no other one of these."""
    for k, (experiment, (dataset, model, _)) in enumerate(_of_experiments.items()):
        changes = {"model": model, "dataset": dataset, "group": experiment, "started": f"2026-01-0{k + 1}"}
        run = write_run(tmp_path / experiment, configuration(), epochs=1, **changes)
        shutil.copy(repository / "cfg/experiment/hippo" / f"{experiment}.yaml", run.path / "config.yaml")
    found = compare(published(tmp_path, *(f"{row},accuracy,1" for _, _, row in _of_experiments.values())), groups_of(tmp_path))
    assert [each.row for each in found] == list(range(len(_of_experiments)))


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
    assert (alone["task"], alone["ours"], alone["note"]) == ("enwik8", "-", "no run on this task")
    for name in ("table.txt", "table.md", "report.html"):
        text = (tmp_path / "out" / name).read_text()
        assert "+0.0150" in text, name
        assert "enwik8" in text, name
    assert "$+$0.0150" in (tmp_path / "out" / "table.tex").read_text()
