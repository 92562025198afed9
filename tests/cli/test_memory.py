"""``python -m seqmem.memory CHECKPOINT``: what it prints, draws and writes for each kind of data, and what it refuses."""

import csv
import re

import pytest
import torch
from torch.testing import assert_close

from seqmem import datasets
from seqmem.cli import commandline, finished_trial, memory
from seqmem.diagnostics import Sample, drawn, measure
from seqmem.errors import UserError
from seqmem.training.checkpoints.files import initial, read_checkpoint, restore
from tests.trials import run_trials

TINY = ("train.epochs=1", "train.limit_train_batches=2", "train.lr=0.01", "runner.accelerator=cpu", "model.preset=tiny")
FEW = "dataset.train_samples=8 dataset.validation_samples=4 dataset.test_samples=40 train.batch_size=4"
KINDS = {
    "values": f"dataset=adding dataset.length=40 model=legs {FEW}",
    "lengths": "dataset=reber dataset.length=12 dataset.shortest=9 model=lru train.batch_size=4 dataset.train_samples=8 "
    "dataset.validation_samples=4 dataset.test_samples=40",
    "text": "dataset=text dataset.path=words.txt dataset.length=10 model=lstm train.batch_size=4",
    "series": f"dataset=sinusoids dataset.length=20 model=hmlstm {FEW} dataset.train_samples=40",
    "convolutions": f"dataset=adding dataset.length=20 model=tcn {FEW}",
    "both directions": f"dataset=adding dataset.length=20 model=ema model.bidirectional=true {FEW}",
    "autoencoder": f"dataset=phase_signals model=seq2seq_ae {FEW}",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Makes a finished trial of a kind, once."""
    made = {}

    def make(kind, *arguments):
        if (kind, arguments) not in made:
            folder = tmp_path_factory.mktemp("trial")
            (folder / "words.txt").write_text("the quick brown fox jumps over the lazy dog " * 300)
            words = KINDS[kind].replace("words.txt", str(folder / "words.txt")).split()
            config = commandline.compose([*TINY, *words, *arguments])
            [trial] = run_trials(config, datasets.load(config["dataset"]), folder)
            made[kind, arguments] = trial.path
        return made[kind, arguments]

    return make


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs the command in this process, and returns its output."""

    def command(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["seqmem.memory", *map(str, arguments)])
        capsys.readouterr()
        memory.main()
        shown = capsys.readouterr()
        assert shown.err == ""
        return shown.out

    return command


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def column(rows, model, name, layer="all"):
    found = [row[name] for row in rows if (row["model"], row["layer"]) == (model, layer)]
    return torch.tensor([float(cell) if cell else torch.nan for cell in found], dtype=torch.float64)


def test_trained_and_untrained_weights_and_the_closed_form_are_measured(trained, run):
    trial = trained("values")
    printed = run(trial)
    assert printed.startswith("legs on adding, epoch 1, test split: 40 sequences of at least 40 steps\n")
    rows = rows_of(trial / "memory_test.csv")
    [closed] = {row["model"] for row in rows} - {"trained", "untrained"}
    assert closed == "closed form of legs, order 5"
    checkpoint = read_checkpoint(trial)
    data = datasets.load(checkpoint.config["dataset"])
    sample = Sample.of(drawn(data, "test", 1000), None, 64, 4)
    models = {
        "trained": restore(checkpoint, checkpoint.config["train"], data.spec).model,
        "untrained": initial(checkpoint, checkpoint.config["train"], data.spec).model,
    }
    for name, model in models.items():
        curves = measure(model, sample)
        assert_close(column(rows, name, "gradient"), curves.norms)
        assert_close(column(rows, name, "gradient_error"), curves.errors)
        assert_close(column(rows, name, "r2")[sample.lags], curves.r2)
        assert f"{name:9}  {curves.size:>7}  {curves.effective_length:>23}\n" in printed
        left = column(rows, name, "gradient_left")
        assert left[curves.effective_length] <= 0.01 < left[curves.effective_length - 1]
    assert not torch.allclose(column(rows, "trained", "gradient"), column(rows, "untrained", "gradient"))
    assert {row["sequences"] for row in rows if row["model"] == "trained"} == {"40"}
    assert len(column(rows, closed, "r2")) == len(sample.lags)
    assert "norms are exact\n" in printed
    assert printed.endswith(f"all lags: {trial / 'memory_test.csv'}\npicture: {trial / 'memory_test.png'}\n")
    assert (trial / "memory_test.png").read_bytes().startswith(b"\x89PNG")


def test_one_sequence_gives_no_standard_error(trained, run):
    printed = run(trained("values"), "gradient_sequences=1", "csv=one.csv", "picture=one.png")
    assert "by the input at a lag, of one sequence\n" in printed
    assert "no standard error: got 1 sequence, expected at least 2 (gradient_sequences=2); norms are exact\n" in printed
    assert "at most 0 %" not in printed
    assert "standard error up to" in run(trained("values"), "gradient_sequences=2", "csv=two.csv", "picture=two.png")


def test_other_data_leave_the_files_of_the_first_measurement(trained, run):
    trial = trained("values")
    run(trial)
    before, files = (trial / "memory_test.csv").read_bytes(), set(trial.iterdir())
    printed = run(trial, "dataset.length=30")
    assert (trial / "memory_test.csv").read_bytes() == before
    [csv, picture] = sorted(set(trial.iterdir()) - files)
    assert printed.endswith(f"all lags: {csv}\npicture: {picture}\n")
    assert re.fullmatch(r"memory_test_[0-9a-f]{6}\.csv", csv.name)


def test_keys_choose_split_lags_layers_and_files(trained, run, tmp_path):
    trial = trained("lengths")
    given = ("split=validation", "layer=each", "lags=5", "left=0.5", "probes=3", "csv=mine.csv", "picture=mine.pdf")
    printed = run(trial, *given, "dataset.validation_samples=30", "gradient_sequences=7", "sequences=20")
    assert "lru on reber, epoch 1, validation split: 20 sequences of at least 6 steps\n" in printed
    assert "at most 0.5 of the norm, summed over lags 0 to 5, is left\n" in printed
    assert re.search(r"norms are estimated from 3 random directions of \d+\n", printed)
    assert "a lower bound: 10 sequences fit a map of " in printed
    rows = rows_of(tmp_path / "mine.csv")
    assert {(row["model"], row["layer"]) for row in rows} == {
        (model, layer) for model in ("trained", "untrained") for layer in ("1", "2")
    }
    assert {row["sequences"] for row in rows} == {"7"}
    assert len(column(rows, "trained", "r2", "2")) == 6
    assert (tmp_path / "mine.pdf").read_bytes().startswith(b"%PDF")
    alone = run(trial, "layer=2", "probes=0", "csv=mine.csv", "picture=mine.pdf")
    assert "\ntrained, layer 2 " in alone
    assert "norms are exact\n" in alone
    assert {row["layer"] for row in rows_of(tmp_path / "mine.csv")} == {"2"}


@pytest.mark.parametrize("kind", ["text", "series"])
def test_other_data_have_curves_too(kind, trained, run):
    trial = trained(kind)
    printed = run(trial, "split=train", "gradient_sequences=4", "probes=2", "sequences=400")
    rows = rows_of(trial / "memory_train.csv")
    for name in ("trained", "untrained"):
        assert bool((column(rows, name, "gradient") > 0).all())
        assert bool(column(rows, name, "r2").isfinite().any())
    if kind == "text":
        r2 = column(rows, "trained", "r2")
        assert r2[0] > 0.3  # the state says which symbol was the last one
        assert "lstm on text words" in printed


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("values", ("train.epochs=0", "seed=3")),
        ("lengths", ("train.epochs=0", "train.precision=64-true", "model.norm=batch")),
        ("text", ("train.epochs=0",)),
    ],
)
def test_the_untrained_model_is_the_one_that_the_training_began_with(kind, arguments, trained):
    """A trial without an epoch keeps its initial weights as a checkpoint."""
    checkpoint = read_checkpoint(trained(kind, *arguments))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    module = initial(checkpoint, checkpoint.config["train"], checkpoint.spec)
    assert torch.equal(torch.get_rng_state(), before)
    found = {name: value for name, value in module.state_dict().items() if name.startswith("model.")}
    expected = {name: value for name, value in checkpoint.weights.items() if name.startswith("model.")}
    assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["convolutions", "both directions", "autoencoder"])
def test_models_without_a_state_are_refused(kind, trained):
    trial = trained(kind, "train.epochs=0")
    label = {"convolutions": "tcn", "both directions": "ema", "autoencoder": "seq2seq_ae"}[kind]
    message = f"best.ckpt: got a checkpoint of {label}, which carries no state from step to step, expected recurrent cells or"
    with pytest.raises(UserError, match=re.escape(message)):
        memory.run(*finished_trial.read([str(trial)], memory.Keys))


def test_mistakes_are_named(trained):
    """Those of the command line alone are in test_finished_trial.py."""
    for arguments, message in (
        ("layer=3", "layer: got 3, expected 1, the only layer of the model"),
        ("layer=every", "layer: got 'every', expected"),
        ("lags=40", "lags: got 40, expected at most 39, which at least 4 of 40 sequences have"),
        ("left=1", "left: got 1, expected"),
        ("sequences=3", "sequences: got 3, expected"),
        ("csv=x.txt", "csv: got x.txt, expected a name that ends in .csv"),
        ("csv=nowhere/x.csv", "csv: got nowhere/x.csv, but there is no folder nowhere"),
        ("picture=x.jpegg", "picture: got x.jpegg, expected a name that ends in one of"),
        ("dataset=digits", "digits has input_size=1, expected input_size=2"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            memory.run(*finished_trial.read([str(trained("values")), *arguments.split()], memory.Keys))
