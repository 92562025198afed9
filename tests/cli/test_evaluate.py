"""``python evaluate.py CHECKPOINT``: the trial's own numbers again, other data, predictions in a file, and mistakes."""

import csv
import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import seqmem
from seqmem import datasets
from seqmem.cli import commandline, evaluate, finished_trial
from seqmem.errors import UserError
from seqmem.results.record import RunFolder
from seqmem.training.checkpoints.files import read_checkpoint, restore
from tests.trials import run_trials

TINY = ("train.epochs=2", "train.limit_train_batches=2", "train.lr=0.01", "runner.accelerator=cpu", "model.preset=tiny")
FEW = "dataset.train_samples=9 dataset.validation_samples=5 dataset.test_samples=7 train.batch_size=4"
KINDS = {
    "classification": "dataset=digits model=legs train.batch_size=50",
    "classification of named classes": f"dataset=reber dataset.length=12 dataset.shortest=9 model=gru {FEW}",
    "classification of the last steps": f"dataset=copying dataset.length=11 model=gru {FEW}",
    "regression": f"dataset=adding dataset.length=13 model=rnn {FEW}",
    "forecasting": f"dataset=sinusoids dataset.length=20 model=hmlstm {FEW}",
    "language_modelling": "dataset=text dataset.path=words.txt dataset.length=13 model=lstm train.batch_size=4 "
    "train.eval_batch_size=2",
    "reconstruction": f"dataset=phase_signals model=seq2seq_ae {FEW}",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Makes a finished trial of a kind, once."""
    made = {}

    def make(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp("trial")
            (folder / "words.txt").write_text("the quick brown fox jumps over the lazy dog " * 30)
            config = commandline.compose([*TINY, *KINDS[kind].replace("words.txt", str(folder / "words.txt")).split()])
            [trial] = run_trials(config, datasets.load(config["dataset"]), folder)
            made[kind] = trial.path
        return made[kind]

    return make


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command in this process, and returns its output."""

    def command(*arguments, cwd):
        monkeypatch.chdir(cwd)
        monkeypatch.setattr("sys.argv", ["evaluate.py", *map(str, arguments)])
        capsys.readouterr()
        evaluate.main()
        shown = capsys.readouterr()
        assert shown.err == ""
        return shown.out

    return command


def evaluations(trial):
    return [json.loads(path.read_text()) for path in sorted(trial.glob("evaluations/*.json"))]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_data_give_the_recorded_result_and_the_predictions_give_its_metric(kind, trained, run, tmp_path):
    trial = trained(kind)
    printed = run(trial, "predictions=predictions.npz", cwd=tmp_path)
    record = RunFolder(trial).read_record()
    tested = {name: value for name, value in record["result"].items() if name.startswith("test/")}
    [evaluation] = evaluations(trial)
    assert evaluation["result"] == evaluation["in_training"] == tested
    assert evaluation["changed"] == {}
    assert evaluation["epoch"] == record["best_epoch"]
    for path, sha256 in (
        (Path(evaluation["checkpoint"]), evaluation["checkpoint_sha256"]),
        (tmp_path / "predictions.npz", evaluation["predictions"]["sha256"]),
    ):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    assert evaluation["data"] == json.loads((trial / "data.json").read_text())
    [line] = [line for line in printed.splitlines() if line.startswith(f"{record['metric']} ") and "irreducible" not in line]
    value = tested[f"test/{record['metric']}"]
    assert line.split() == [record["metric"], f"{value:.6g}", f"{value:.6g}"]

    written = np.load(tmp_path / "predictions.npz")
    target, prediction = written["target"], written["prediction"]
    assert written["row"].tolist() == list(range(len(target)))
    valid = np.ones(target.shape[:1], bool)
    if "steps" in written:
        valid = np.arange(target.shape[1]) < written["steps"][:, None]
    by_hand = {
        "accuracy": lambda: (target == prediction).mean(),
        "mse": lambda: np.square(target - prediction)[valid].mean(),
        "nrmse": lambda: np.sqrt(np.square(target - prediction)[valid].sum() / np.square(target)[valid].sum()),
        "bpc": lambda: -np.log2(written["probability"].astype(float)[valid]).mean(),
    }
    assert by_hand[record["metric"]]() == pytest.approx(value, rel=1e-5)
    if kind == "classification of the last steps":
        assert (target == prediction).all(1).mean() == pytest.approx(tested["test/sequence_accuracy"])
    if kind.startswith("classification"):
        np.testing.assert_array_equal(written["probability"].argmax(-1), prediction)
        np.testing.assert_allclose(written["probability"].sum(-1), 1, rtol=1e-5)
        counts = np.zeros_like(evaluation["by_class"])
        np.add.at(counts, (target.flatten(), prediction.flatten()), 1)
        np.testing.assert_array_equal(evaluation["by_class"], counts)
        table = [line.split() for line in printed.splitlines() if line.split()[0].isdigit()]
        assert [int(cells[-3]) for cells in table] == counts.sum(1).tolist()
        assert [int(cells[-2]) for cells in table] == counts.diagonal().tolist()
        assert [int(cells[-1]) for cells in table] == counts.sum(0).tolist()
        if kind == "classification of named classes":
            assert evaluation["class_names"] == ["not in the grammar", "in the grammar"]
            assert [" ".join(cells[:-3]) for cells in table] == ["0 not in the grammar", "1 in the grammar"]


def test_float64_trials_are_reproduced_to_the_last_digit(run, tmp_path):
    """No weight is rounded to float32, and a network that was compiled is compiled again."""
    for kind in ("regression", "reconstruction"):
        config = commandline.compose([*TINY, *KINDS[kind].split(), "train.precision=64-true", "train.epochs=1"])
        [trial] = run_trials(config, datasets.load(config["dataset"]), tmp_path)
        run(trial.path, f"predictions={kind}.npz", cwd=tmp_path)
        [evaluation] = evaluations(trial.path)
        tested = {key: value for key, value in trial.read_record()["result"].items() if key.startswith("test/")}
        assert evaluation["result"] == tested
        checkpoint = read_checkpoint(trial.path)
        module = restore(checkpoint, {**config["train"], "compile": True}, checkpoint.spec)
        assert module.model._compiled_call_impl is not None
        assert all(torch.equal(value, checkpoint.weights[key]) for key, value in module.state_dict().items())
    assert np.load(tmp_path / "regression.npz")["prediction"].dtype == np.float64


def test_a_difference_is_a_warning_with_both_numbers_and_the_reasons(trained, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "trial"
    shutil.copytree(trained("regression"), folder)
    record = json.loads((folder / "record.json").read_text())
    loss = record["result"]["test/loss"]
    changed = {**record["result"], "test/loss": loss + 1e-12}
    machine = {**record["machine"], "threads": 64, "instructions": {"torch": "SSE", "operators": None}}
    RunFolder(folder).write_record({**record, "result": changed, "machine": machine, "code": "0123456789ab"})
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    evaluate.run(*finished_trial.read([str(folder)], evaluate.Keys))
    monkeypatch.delenv("MKL_CBWR")
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"warning: test/loss: got {loss!r}, expected {loss + 1e-12!r} as recorded in training (code 0123456789ab, now "
    )
    assert "threads 64, now " in line
    assert "instructions SSE None, now " in line
    assert "variables none, now MKL_CBWR=COMPATIBLE)" in line
    assert "data" not in line
    checkpoint = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["config"]["runner"]["devices"] = 2
    torch.save(checkpoint, folder / "checkpoints" / "best.ckpt")
    RunFolder(folder).write_record({**record, "result": changed})
    evaluate.run(*finished_trial.read([str(folder)], evaluate.Keys))
    assert capsys.readouterr().err.endswith("as recorded in training (runner.devices 2, now 1)\n")
    # Numbers of other data or settings are expected to differ.
    evaluate.run(*finished_trial.read([str(folder), "train.limit_test_batches=1"], evaluate.Keys))
    evaluate.run(*finished_trial.read([str(folder), "split=train"], evaluate.Keys))
    assert capsys.readouterr().err == ""


def test_a_text_is_one_row_for_each_piece_that_was_read(trained, run, tmp_path):
    trial = trained("language_modelling")
    run(trial, "predictions=a.csv", cwd=tmp_path)
    checkpoint = read_checkpoint(trial)
    data = datasets.load(checkpoint.config["dataset"])
    chunks = [data.batch("test", torch.tensor([k])) for k in range(data.sizes["test"])]
    first = (len(chunks) + 1) // 2
    with open(tmp_path / "a.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    for row, part in enumerate((chunks[:first], chunks[first:])):
        mine = [line for line in lines if line["row"] == str(row)]
        targets = torch.cat([chunk.targets[0] for chunk in part]).tolist()
        assert [int(line["target"]) for line in mine] == targets
        assert [int(line["step"]) for line in mine] == list(range(len(targets)))
        assert {int(line["length"]) for line in mine} == {len(targets)}
        assert all(0 < float(line["probability"]) < 1 for line in mine)


def test_names_of_series_and_classes_stand_beside_their_numbers(run, tmp_path):
    lines = [f"walk {k},{t},{k + t},{('up', 'down')[k % 2]}" for k in range(20) for t in range(4)]
    (tmp_path / "walks.csv").write_text("\n".join(["id,time,x,label", *lines]))
    config = commandline.compose([*TINY, "dataset=files", f"dataset.path={tmp_path / 'walks.csv'}", "model=gru"])
    data = datasets.load(config["dataset"])
    [trial] = run_trials(config, data, tmp_path)
    found = []
    for split in datasets.SPLITS:
        run(trial.path, f"split={split}", f"predictions={split}.csv", "train.limit_train_batches=1.0", cwd=tmp_path)
        rows = list(csv.DictReader((tmp_path / f"{split}.csv").read_text().splitlines()))
        assert list(rows[0])[:7] == ["row", "series", "length", "target", "target_label", "prediction", "prediction_label"]
        assert [row["series"] for row in rows] == data.sequence_names(split)
        for row in rows:
            assert row["target_label"] == ("up", "down")[int(row["series"].split()[1]) % 2]
            for key in ("target", "prediction"):
                assert data.spec.class_names[int(row[key])] == row[f"{key}_label"]
        found += [row["series"] for row in rows]
    assert sorted(found) == sorted(f"walk {k}" for k in range(20))
    run(trial.path, "predictions=test.npz", cwd=tmp_path)
    written = np.load(tmp_path / "test.npz")
    assert written["class_names"].tolist() == ["down", "up"]
    assert written["series"].tolist() == data.sequence_names("test")


def test_training_and_validation_splits_and_other_checkpoints(trained, run, tmp_path):
    trial = trained("classification")
    before = len(evaluations(trial))
    run(trial, "split=train", "predictions=train.csv", cwd=tmp_path)
    run(trial / "checkpoints" / "last.ckpt", "split=validation", cwd=tmp_path)
    made = {each["split"]: each for each in evaluations(trial) if each["split"] != "test"}
    assert len(evaluations(trial)) == before + 2
    metrics = RunFolder(trial).read_metrics()
    last = metrics.iloc[-1]
    assert made["validation"]["result"]["val/loss"] == last["val/loss"]
    assert made["validation"]["in_training"] == {name: last[name] for name in ("val/loss", "val/accuracy")}
    chosen = metrics.iloc[RunFolder(trial).read_record()["best_epoch"]]
    assert made["train"]["in_training"]["train/loss"] == chosen["train/loss"]
    # The first two batches of the split in its own order, as the limit says, by the weights as they are now.
    checkpoint = read_checkpoint(trial)
    data = datasets.load(checkpoint.config["dataset"])
    batch = data.batch("train", torch.arange(100))
    module = restore(checkpoint, checkpoint.config["train"], data.spec).eval()
    with torch.no_grad():
        accuracy = (module(batch).argmax(-1) == batch.targets).float().mean().item()
    assert made["train"]["result"]["train/accuracy"] == pytest.approx(accuracy)
    with open(tmp_path / "train.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [int(line["target"]) for line in lines] == batch.targets.tolist()
    assert [name for name in lines[0] if name.startswith("probability")] == [f"probability_{k}" for k in range(10)]


def test_shifted_data_are_named_next_to_the_numbers(trained, run, tmp_path):
    trial = trained("forecasting")
    printed = run(trial, "dataset.length=33", "train.limit_test_batches=1", cwd=tmp_path)
    assert "dataset.length=33, in training 20\n" in printed
    shifted = next(each for each in evaluations(trial) if each["changed"])
    assert shifted["changed"] == {"dataset.length": [20, 33], "train.limit_test_batches": [1.0, 1]}
    assert shifted["result"]["test/mse"] != shifted["in_training"]["test/mse"]
    assert shifted["config"]["dataset"]["length"] == 33


def test_other_files_are_a_change(trained, run, tmp_path):
    """They may lie at the same path, or in a different dataset.data_dir, which is not a setting."""
    trial = Path(shutil.copytree(trained("language_modelling"), tmp_path / "seed_0"))
    words = Path(read_checkpoint(trial).config["dataset"]["path"])
    before = words.read_text()
    try:
        words.write_text("the lazy dog jumps over the quick brown fox " * 30)
        printed = run(trial, cwd=tmp_path)
    finally:
        words.write_text(before)
    [changed] = [each["changed"] for each in evaluations(trial) if each["changed"]]
    assert list(changed) == ["dataset.files"]
    assert f"dataset.files={changed['dataset.files'][1]}, in training {changed['dataset.files'][0]}\n" in printed


def test_splits_that_an_earlier_version_drew_differently_are_refused(trained, run, tmp_path):
    trial = Path(shutil.copytree(trained("classification"), tmp_path / "seed_0"))
    record = json.loads((trial / "data.json").read_text())
    sizes = record["sizes"]
    (trial / "data.json").write_text(json.dumps(record | {"sizes": sizes | {"train": sizes["train"] + 1}}))
    for keys in ((), ("split=validation",)):
        with pytest.raises(UserError, match=rf"got splits of .*, expected {sizes['train'] + 1:,} \(train\), .* train again"):
            evaluate.run(*finished_trial.read([str(trial), *keys], evaluate.Keys))
    for changes, printed in (
        ({"sizes": sizes | {"train": 1}, "files": {"other": "0"}}, "dataset.files"),  # other files
        ({"sizes": None}, "in training"),
        ({"sizes": sizes | {"train": "a"}}, "in training"),
    ):
        (trial / "data.json").write_text(json.dumps(record | changes))
        assert printed in run(trial, cwd=tmp_path)


def test_a_checkpoint_without_its_trial_is_evaluated_without_a_comparison(trained, run, tmp_path):
    (tmp_path / "mine.ckpt").write_bytes((trained("forecasting") / "checkpoints" / "best.ckpt").read_bytes())
    printed = run("mine.ckpt", cwd=tmp_path)
    assert "in training" not in printed
    assert len(evaluations(tmp_path)) == 1


MISTAKES = {
    "split=tests": "split: got 'tests', expected 'test', 'validation' or 'train'; did you mean 'test'?",
    "prediction=a.csv": "prediction: no such key; did you mean 'predictions'?",
    "predictions=a.txt": "predictions: got a.txt, expected a name that ends in .npz or .csv",
    "predictions=no/a.csv": "predictions: got no/a.csv, but there is no folder no",
    "predictions=there.csv": "predictions: got there.csv, which exists already",
    "dataset=digits": "digits has output_size=10, expected output_size=1",
}


def test_mistakes_are_named_and_leave_nothing(trained, tmp_path, monkeypatch):
    """Those of the command line alone are in test_finished_trial.py."""
    trial = trained("forecasting")
    before = len(evaluations(trial))
    (tmp_path / "there.csv").write_text("kept")
    monkeypatch.chdir(tmp_path)
    for argument, message in MISTAKES.items():
        with pytest.raises(UserError, match=re.escape(message)):
            evaluate.run(*finished_trial.read([str(trial), argument], evaluate.Keys))
    assert len(evaluations(trial)) == before
    assert [path.name for path in tmp_path.iterdir()] == ["there.csv"]
    assert (tmp_path / "there.csv").read_text() == "kept"


def test_a_trial_of_a_gpu_is_evaluated_on_a_machine_without(trained, run, tmp_path, monkeypatch):
    trial = Path(shutil.copytree(trained("regression"), tmp_path / "seed_0"))
    path = trial / "checkpoints" / "best.ckpt"
    saved = torch.load(path, weights_only=True)
    saved["hyper_parameters"]["config"]["runner"]["accelerator"] = "gpu"
    saved["hyper_parameters"]["backend"] = "cuda compiled"
    torch.save(saved, path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"^runner.accelerator: got 'gpu', but torch finds no GPU here; did you mean 'auto'\?$"):
        finished_trial.read([str(trial)], evaluate.Keys)
    assert "mse" in run(trial, "runner.accelerator=auto", cwd=tmp_path)
    assert seqmem.load(path).spec.task == "regression"


def test_a_damaged_record_is_named(trained, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.ckpt").write_bytes((trained("forecasting") / "checkpoints" / "best.ckpt").read_bytes())
    (tmp_path / "record.json").write_text("{")
    with pytest.raises(UserError, match="cannot read the record of "):
        evaluate.run(*finished_trial.read([str(tmp_path)], evaluate.Keys))


@pytest.mark.parametrize("machine", ["box", 3, [], None])
def test_a_record_whose_machine_is_damaged_is_evaluated(machine, trained, run, tmp_path):
    trial = RunFolder(Path(shutil.copytree(trained("forecasting"), tmp_path / "seed_0")))
    trial.write_record({**trial.read_record(), "machine": machine})
    assert "in training" in run(trial.path, cwd=tmp_path)
