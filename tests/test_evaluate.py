"""``python evaluate.py CHECKPOINT``: the trial's own numbers again, other data, answers in a file, and mistakes in one line."""

import csv
import hashlib
import json

import numpy as np
import pytest
import torch

from seqmem import datasets
from seqmem.results.record import RunFolder
from seqmem.training.checkpoints.checkpoints import read_checkpoint, restore
from tests import program

TINY = ("train.epochs=2", "train.limit_train_batches=2", "train.lr=0.01", "runner.accelerator=cpu", "model.preset=tiny")
FEW = "dataset.train_samples=9 dataset.validation_samples=5 dataset.test_samples=7 train.batch_size=4"
KINDS = {
    "classification": "dataset=digits model=legs train.batch_size=50",
    "classification of the last steps": f"dataset=copying dataset.length=11 model=gru {FEW}",
    "regression": f"dataset=adding dataset.length=13 model=rnn {FEW}",
    "forecasting": f"dataset=sinusoids dataset.length=20 model=hmlstm {FEW}",
    "language_modelling": "dataset=text dataset.path=words.txt dataset.length=13 model=lstm train.batch_size=4 "
    "train.eval_batch_size=2",
    "reconstruction": f"dataset=phase_signals model=seq2seq_ae {FEW}",
}


def run(command, cwd):
    done = program.run(command, cwd)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Makes a finished trial of a kind, once."""
    made = {}

    def make(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp("trial")
            (folder / "words.txt").write_text("the quick brown fox jumps over the lazy dog " * 30)
            run(["train.py", *TINY, *KINDS[kind].split()], folder)
            [made[kind]] = folder.glob("runs/*/seed_0")
        return made[kind]

    return make


def evaluations(trial):
    return [json.loads(path.read_text()) for path in sorted(trial.glob("evaluations/*.json"))]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_data_give_the_recorded_result_and_the_answers_give_its_metric(kind, trained, tmp_path):
    trial = trained(kind)
    folder = trial.parents[2]
    printed = run(["evaluate.py", str(trial), f"predictions={tmp_path}/answers.npz"], folder)
    record = RunFolder(trial).read_record()
    tested = {name: value for name, value in record["result"].items() if name.startswith("test/")}
    [evaluation] = evaluations(trial)
    assert evaluation["result"] == evaluation["in_training"] == tested
    assert evaluation["changed"] == {}
    assert evaluation["epoch"] == record["best_epoch"]
    for path, sha256 in (
        (folder / evaluation["checkpoint"], evaluation["checkpoint_sha256"]),
        (tmp_path / "answers.npz", evaluation["predictions"]["sha256"]),
    ):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    assert evaluation["data"] == json.loads((trial / "data.json").read_text())
    [line] = [line for line in printed.splitlines() if line.startswith(f"{record['metric']} ") and "irreducible" not in line]
    value = tested[f"test/{record['metric']}"]
    assert line.split() == [record["metric"], f"{value:.6g}", f"{value:.6g}"]

    answers = np.load(tmp_path / "answers.npz")
    target, prediction = answers["target"], answers["prediction"]
    assert answers["row"].tolist() == list(range(len(target)))
    valid = np.ones(target.shape[:1], bool)
    if "steps" in answers:
        valid = np.arange(target.shape[1]) < answers["steps"][:, None]
    by_hand = {
        "accuracy": lambda: (target == prediction).mean(),
        "mse": lambda: np.square(target - prediction)[valid].mean(),
        "nrmse": lambda: np.sqrt(np.square(target - prediction)[valid].sum() / np.square(target)[valid].sum()),
        "bpc": lambda: -np.log2(answers["probability"].astype(float)[valid]).mean(),
    }
    assert by_hand[record["metric"]]() == pytest.approx(value, rel=1e-5)
    if kind.startswith("classification"):
        np.testing.assert_array_equal(answers["probability"].argmax(-1), prediction)
        np.testing.assert_allclose(answers["probability"].sum(-1), 1, rtol=1e-5)
        counts = np.zeros_like(evaluation["by_class"])
        np.add.at(counts, (target.flatten(), prediction.flatten()), 1)
        np.testing.assert_array_equal(evaluation["by_class"], counts)
        table = [line.split() for line in printed.splitlines() if line.split()[0].isdigit()]
        assert [int(cells[1]) for cells in table] == counts.sum(1).tolist()
        assert [int(cells[2]) for cells in table] == counts.diagonal().tolist()


def test_a_text_is_one_row_for_each_piece_that_was_read(trained, tmp_path):
    trial = trained("language_modelling")
    folder = trial.parents[2]
    run(["evaluate.py", str(trial), f"predictions={tmp_path}/a.csv"], folder)
    checkpoint = read_checkpoint(trial)
    data = datasets.load({**checkpoint.config["dataset"], "path": str(folder / "words.txt")})
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


def test_training_and_validation_splits_and_other_checkpoints(trained, tmp_path):
    trial = trained("classification")
    before = len(evaluations(trial))
    run(["evaluate.py", str(trial), "split=train", "predictions=train.csv"], tmp_path)
    run(["evaluate.py", str(trial / "checkpoints" / "last.ckpt"), "split=validation"], tmp_path)
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


def test_shifted_data_are_named_beside_the_numbers(trained, tmp_path):
    trial = trained("forecasting")
    printed = run(["evaluate.py", str(trial), "dataset.length=33", "train.limit_test_batches=1"], tmp_path)
    assert "dataset.length=33, in training 20\n" in printed
    shifted = next(each for each in evaluations(trial) if each["changed"])
    assert shifted["changed"] == {"dataset.length": [20, 33], "train.limit_test_batches": [1.0, 1]}
    assert shifted["result"]["test/mse"] != shifted["in_training"]["test/mse"]
    assert shifted["config"]["dataset"]["length"] == 33


def test_a_checkpoint_without_its_trial_is_evaluated_without_a_comparison(trained, tmp_path):
    (tmp_path / "mine.ckpt").write_bytes((trained("forecasting") / "checkpoints" / "best.ckpt").read_bytes())
    printed = run(["evaluate.py", "mine.ckpt"], tmp_path)
    assert "in training" not in printed
    assert len(evaluations(tmp_path)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected a checkpoint or the folder of a finished trial first"),
        (("TRIAL", "split=tests"), "split: got 'tests', expected 'test', 'validation' or 'train'; did you mean 'test'?"),
        (("TRIAL", "prediction=a.csv"), "there is no key 'prediction'; did you mean 'predictions'?"),
        (("TRIAL", "predictions=a.txt"), "predictions: got a.txt, expected a name that ends in .npz or .csv"),
        (("TRIAL", "predictions=no/a.csv"), "predictions: got no/a.csv, but there is no folder no"),
        (("TRIAL", "predictions=there.csv"), "predictions: got there.csv, which exists already"),
        (("TRIAL", "dataset.lenght=3"), "did you mean 'length'?"),
        (("TRIAL", "dataset=digits"), "digits has output_size=10, expected output_size=1"),
        (("TRIAL", "model=lstm"), "the model of a finished trial stays as it was trained"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message, trained, tmp_path):
    trial = trained("forecasting")
    before = len(evaluations(trial))
    (tmp_path / "there.csv").write_text("kept")
    done = program.run(["evaluate.py", *(str(trial) if part == "TRIAL" else part for part in arguments)], tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert len(evaluations(trial)) == before
    assert (tmp_path / "there.csv").read_text() == "kept"


def test_a_damaged_record_is_named(trained, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.ckpt").write_bytes((trained("forecasting") / "checkpoints" / "best.ckpt").read_bytes())
    (tmp_path / "record.json").write_text("{")
    done = program.run(["evaluate.py", "."], tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot read the record of .")


def test_help_names_every_key_of_the_command(tmp_path):
    shown = run(["evaluate.py", "--help"], tmp_path)
    for key in ("CHECKPOINT", "split=", "predictions=", "dataset=NAME", "evaluations/"):
        assert key in shown
