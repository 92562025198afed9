"""``seqmem evaluate FOLDER``: each finished trial below a folder."""

import csv
import json
import shutil
import statistics

import pytest

from seqmem import datasets
from seqmem.cli import commandline, each_trial, evaluate
from seqmem.errors import UserError
from seqmem.results.kept_predictions import Scores, kept_scores
from seqmem.results.reading import find_runs
from tests.trials import run_trials

KEYS = "dataset=adding dataset.length=13 dataset.train_samples=9 dataset.test_samples=7 model=gru model.preset=tiny"
RUN = "train.epochs=1 train.batch_size=4 runner.accelerator=cpu runner.ntrials=2"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a, b=c")
    config = commandline.compose(f"{KEYS} {RUN}".split())
    run_trials(config, datasets.load(config["dataset"]), folder)
    return folder


@pytest.fixture
def trials(sweep, tmp_path):
    """Two finished trials, and one that failed."""
    folder = tmp_path / "runs, x=1"
    shutil.copytree(sweep, folder)
    first = next(folder.glob("*/seed_0"))
    failed = first.with_name("seed_2")
    shutil.copytree(first, failed)
    record = json.loads((first / "record.json").read_text())
    (failed / "record.json").write_text(json.dumps({**record, "seed": 2, "status": "failed", "reason": "x"}))
    return folder, [first, first.with_name("seed_1")]


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command in this process, and returns its output."""

    def command(*arguments):
        monkeypatch.setattr("sys.argv", ["evaluate.py", *map(str, arguments)])
        capsys.readouterr()
        evaluate.main()
        return capsys.readouterr().out

    return command


def test_commands_of_a_folder_and_of_a_trial(trials, tmp_path):
    folder, each = trials
    found = each_trial.commands(["--config-dir", str(tmp_path), str(folder), "lengths=20"])
    assert found == [["--config-dir", str(tmp_path), str(trial), "lengths=20"] for trial in each]
    for command in ([str(each[0])], [str(each[0]), "lengths=20"], ["lengths=20"], ["nowhere", "lengths=20"], []):
        assert each_trial.commands(command) is None
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="none: got no finished trial below it, expected the folder of a trial or of trials"):
        each_trial.commands([str(tmp_path / "none")])


def test_each_finished_trial_is_evaluated(trials, run):
    folder, each = trials
    printed = run(folder)
    assert [line for line in printed.splitlines() if "test split" in line] == [
        f"gru on adding, seed {seed}, epoch 1, test split" for seed in (0, 1)
    ]
    assert [len(list(trial.glob("evaluations/*.json"))) for trial in each] == [1, 1]
    assert not (each[0].with_name("seed_2") / "evaluations").exists()


def test_the_mean_of_a_row_over_its_trials_is_printed(trials, run):
    folder, each = trials
    table = run(folder, "dataset.length=20").partition("mean +/- sample standard deviation")[2]
    files = [next(trial.glob("evaluations/*.json")) for trial in each]
    now = [json.loads(file.read_text())["result"]["test/mse"] for file in files]
    before = [json.loads((trial / "record.json").read_text())["result"]["test/mse"] for trial in each]
    cells = [cell.strip() for cell in next(line for line in table.splitlines() if " gru " in line).split("│")[1:-1]]
    assert cells[:3] == ["adding", "gru", "2"]
    for cell, values in zip(cells[3:], (now, before), strict=True):
        mean, deviation = map(float, cell.split(" +/- "))
        assert mean == pytest.approx(statistics.fmean(values), abs=1e-4)
        assert deviation == pytest.approx(statistics.stdev(values), abs=1e-4, rel=1e-2)
    assert "95 % interval" not in table.splitlines()[1]  # of two trials
    assert "mean +/-" not in run(each[0])


def test_a_trial_that_cannot_be_read_does_not_stop_the_others(trials, run, capsys):
    folder, each = trials
    (each[0] / "checkpoints" / "best.ckpt").write_bytes(b"damaged")
    with pytest.raises(SystemExit):
        run(folder)
    shown = capsys.readouterr()
    assert shown.err.startswith(f"error: {each[0]}: ")
    assert shown.err.count("\n") == 1
    assert "gru on adding, seed 1, epoch 1, test split" in shown.out


def test_a_trial_without_enough_memory_does_not_stop_the_others(trials, run, capsys, monkeypatch):
    folder, each = trials
    original, calls = evaluate.run, []

    def run_one(*arguments, **keywords):
        calls.append(arguments)
        if len(calls) == 1:
            raise MemoryError
        return original(*arguments, **keywords)

    monkeypatch.setattr(evaluate, "run", run_one)
    with pytest.raises(SystemExit):
        run(folder)
    shown = capsys.readouterr()
    assert shown.err.startswith(f"error: {each[0]}: not enough memory")
    assert "gru on adding, seed 1, epoch 1, test split" in shown.out


def test_the_heading_names_the_seed_of_the_training(trials, run):
    _, each = trials
    assert run(each[1], "seed=4").startswith("gru on adding, seed 1, epoch 1, test split\n")


def test_predictions_of_other_data_are_not_those_that_were_kept(trials, run, capsys):
    folder, each = trials
    run(folder, "predictions=kept.csv")
    [file] = each[1].glob("evaluations/*.json")
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "data": {**record["data"], "seed": 1}}))
    with pytest.raises(SystemExit):
        run(folder, "predictions=kept.csv")
    shown = capsys.readouterr()
    assert f"kept before: {each[0]}" in shown.out
    assert "kept.csv, which exists already; expected the name of a new file" in shown.err


def test_each_trial_keeps_its_own_predictions_once(trials, run):
    folder, each = trials
    run(each[0].parent, "predictions=kept.csv")
    files = [trial / "evaluations" / "kept.csv" for trial in each]
    targets = [[row["target"] for row in csv.DictReader(file.read_text().splitlines())] for file in files]
    assert len(targets[0]) == 7
    assert targets[0] == targets[1]
    for found in find_runs(folder):
        assert isinstance(kept_scores(found, "mse"), Scores) == found.finished

    # An interrupted command continues: only what is missing is computed.
    files[1].unlink()
    printed = run(folder, "predictions=kept.csv").splitlines()
    assert printed[0] == f"kept before: {files[0]}"
    assert files[1].is_file()
    assert [len(list(trial.glob("evaluations/*.json"))) for trial in each] == [1, 2]
    [line] = [line for line in printed if " gru " in line and "+/-" in line]
    assert line.split("\u2502")[3].strip() == "2"  # the one that was kept before counts


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["predictions=kept.csv", "split=validation"], "kept.csv, which exists already; expected the name of a new file"),
        (["predictions=kept.csv", "dataset.length=20"], "kept.csv, which exists already; expected the name of a new file"),
        (
            ["predictions=there/kept.csv"],
            "predictions: got there/kept.csv with a folder of trials, expected a name alone, as kept.csv",
        ),
        (["predictions=by_length.csv"], "which lengths=A,B,... writes; expected another name, as predictions.csv"),
        (["predictions=kept.txt"], "kept.txt, expected a name that ends in .npz or .csv"),
    ],
)
def test_a_name_that_is_taken_by_other_predictions_is_refused(trials, run, capsys, keys, message):
    folder, each = trials
    run(folder, "predictions=kept.csv")
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    with pytest.raises(SystemExit):
        run(folder, *keys)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {each[0]} {keys[0]}")
    assert line.endswith(f"{message}; 1 more of 2 trials failed")
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
