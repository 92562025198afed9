"""Trials that are trained again: which are drawn, by which command, and when a number counts as the same."""

import shlex
import sys
from pathlib import Path

import pytest

from benchmarks import output, repeat, trial_rows
from benchmarks.pages import results
from benchmarks.pages.trials import Column, Row, Trials
from seqmem import models
from seqmem.cli import commandline
from seqmem.training.config import model_arguments

TABLE = Trials("page", "f.csv", lambda trial: {"model": trial["model"]}, Column("score", "test"), "`run`")


def _trial(model, seed, processor="P", seconds="10", test="0.5"):
    return {
        "model": model,
        "seed": str(seed),
        "processor": processor,
        "seconds": seconds,
        "test": test,
        "validation": "0.25",
        "commit": "first",
        "threads": "2",
        "command": f"python train.py model={model} seed={seed}",
    }


@pytest.fixture
def tables(monkeypatch):
    """One table of a few rows, on a machine with the processor P."""
    trials = [_trial("a", 0), _trial("a", 1), _trial("b", 0, processor="Q"), _trial("c", 0, seconds="900"), _trial("d", 0)]
    rows = [Row(TABLE, {"model": name}, [each for each in trials if each["model"] == name]) for name in "abcd"]
    monkeypatch.setattr(Trials, "rows", lambda self: rows)
    monkeypatch.setattr(repeat, "TRIALS", [TABLE])
    monkeypatch.setattr(repeat, "provenance", lambda: {"machine": {"processor": "P"}})


def test_drawn_are_rows_of_this_processor_that_are_short_enough(tables):
    found = [repeat.drawn(2, seed, longest=600) for seed in range(20)]
    assert {row.settings["model"] for rows in found for row, _ in rows} == {"a", "d"}
    assert {trial["seed"] for rows in found for row, trial in rows if row.settings["model"] == "a"} == {"0", "1"}
    assert all(len({row.settings["model"] for row, _ in rows}) == 2 for rows in found)
    assert found[3] == repeat.drawn(2, 3, longest=600)
    assert len(repeat.drawn(3, 0, longest=900)) == 3
    assert repeat.drawn(2, 3, longest=600, pages=["page"]) == found[3]
    with pytest.raises(SystemExit, match="expected at most 0"):
        repeat.drawn(1, 3, longest=600, pages=["other"])


def test_too_few_rows_are_one_line(tables):
    with pytest.raises(SystemExit, match=r"^error: --count: got 3, expected at most 2: rows with a trial on P of 600 s$"):
        repeat.drawn(3, 0, longest=600)


@pytest.mark.parametrize(("again", "expected"), [(0.5004, True), (0.4996, True), (0.5006, False), (0.4, False)])
def test_a_number_is_the_same_to_half_a_unit_of_its_last_digit(again, expected):
    found = {"digits": "3", "test": "0.5", "test_again": str(again), "validation": "1", "validation_again": "1"}
    assert repeat.same(found) is expected
    swapped = {"digits": "3", "test": "1", "test_again": "1", "validation": "0.5", "validation_again": str(again)}
    assert repeat.same(swapped) is expected


def test_comparisons_are_added_to_the_file_and_a_difference_is_an_error(tables, monkeypatch, tmp_path, capsys):
    numbers, threads, commands = iter([0.5, 0.5, 0.6, 0.5]), [], []

    def record(command):
        commands.append(command)
        return {
            "result": {"test/accuracy": next(numbers), "val/accuracy": 0.25},
            "metric": "accuracy",
            "best_epoch": 1,
            "commit": "second",
            "started": "now",
            "seconds": 9.5,
            "machine": {"processor": "P", "threads": threads.pop(0) if threads else 2},
            "versions": {"torch": "2"},
        }

    monkeypatch.setattr(repeat, "_record", record)
    path = tmp_path / "repeated.csv"
    monkeypatch.setattr(sys, "argv", ["repeat", "--count", "2", "--output", str(path)])
    repeat.main()
    assert capsys.readouterr().out.count("same: python train.py") == 2
    monkeypatch.setattr(sys, "argv", ["repeat", "--count", "1", "--output", str(path)])
    with pytest.raises(SystemExit, match="1 of 1 trials have other numbers than the table"):
        repeat.main()
    assert "DIFFERENT: python train.py" in capsys.readouterr().out
    rows = trial_rows.read(path)
    assert [(row["test"], row["test_again"]) for row in rows] == [("0.5", "0.5"), ("0.5", "0.5"), ("0.5", "0.6")]
    assert {(row["commit"], row["commit_again"], row["file"]) for row in rows} == {("first", "second", "f.csv")}
    assert len(set(commands)) == 3  # each trial once
    with pytest.raises(SystemExit, match="expected at most 0: rows"):
        repeat.main()
    path.unlink()
    threads.append(1)
    with pytest.raises(SystemExit, match=r"seed \d: got a repetition on P, threads: 1, expected P, threads: 2$"):
        repeat.main()
    assert not path.exists()


def test_a_trial_is_trained_by_its_command_in_the_shell(tmp_path, monkeypatch):
    """With the interpreter of this program, its own variables and none of the libraries that the caller preloads."""
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\n"
        "from pathlib import Path\n"
        f"sys.path.insert(0, {str(repeat.ROOT)!r})\n"
        "from tests.results.synthetic import configuration, write_run\n"
        "variables = [os.environ.get(name) for name in ('OMP_NUM_THREADS', 'LD_PRELOAD', 'MKL_CBWR')]\n"
        "assert sys.argv[1] == 'runner.accelerator=cpu'\n"
        "folder = Path(sys.argv[2].removeprefix('output_dir=')) / 'seed_0'\n"
        "write_run(folder, configuration('gru'), executable=sys.executable, variables=variables)\n"
    )
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    record = repeat._record(f'OMP_NUM_THREADS="$(echo 3)" python {program}')
    assert record["status"] == "finished"
    assert Path(record["executable"]).parent == Path(sys.executable).parent
    assert record["variables"] == ["3", None, None]
    with pytest.raises(SystemExit, match=r"(?s)here\n+error: echo here; false: exit status 1"):
        repeat._record("echo here; false")


def test_the_command_says_what_the_numbers_depend_on():
    preload = 'LD_PRELOAD="$(python -m seqmem.io.mkl)" '
    assert trial_rows.environment("AMD EPYC, family 26 model 2, MKL with AVX-512", "1") == f"{preload}OMP_NUM_THREADS=1 "
    assert trial_rows.environment("AMD EPYC, family 26 model 2", "2") == "OMP_NUM_THREADS=2 "
    assert trial_rows.environment("Intel(R) Xeon(R) Processor", "") == ""


def test_kept_comparisons_agree_with_the_tables():
    """A row that was repeated has the number that its table shows, unless its trial was trained anew since."""
    trials = {(of.file, of.again(each)): each for of in results.TRIALS for row in of.rows() for each in row.trials}
    assert all(repeat._number(each, names) for each in trials.values() for names in (repeat.TEST, repeat.VALIDATION))
    for found in trial_rows.read(output.RESULTS / "repeated.csv"):
        trial = trials.get((found["file"], found["command"]))
        if trial and trial["commit"] == found["commit"]:
            assert repeat._number(trial, repeat.TEST) == found["test"]
            assert repeat._number(trial, repeat.VALIDATION) == found["validation"]


@pytest.mark.parametrize("of", results.TRIALS, ids=lambda of: of.file)
def test_each_table_has_the_command_of_a_trial(of):
    rows = of.rows()
    if not rows:
        pytest.skip(f"no trial in {of.file}")
    trial = rows[-1].trials[-1]
    before, _, command = of.again(trial).partition("python train.py ")
    arguments = shlex.split(command)
    assert before == trial_rows.environment(trial["processor"], trial.get("threads", ""))
    config = commandline.compose(arguments)
    assert (str(config["seed"]), config["runner"]["ntrials"]) == (trial["seed"], 1)
    assert config["train"]["epochs"] >= int(trial["epochs"])
    assert trial["model"] == models.label(model_arguments(config))
