"""``python -m seqmem.boundaries CHECKPOINT``: what it prints and draws for a signal and a text; its errors in one line."""

import json
import re

import pytest

from seqmem import datasets
from seqmem.cli import boundaries, commandline, finished_trial
from seqmem.errors import UserError
from tests.trials import run_trials

TINY = (
    "smoke_test=True",
    "train.batch_size=4",
    "train.lr=0.01",
    "model.preset=tiny",
    "runner.accelerator=cpu",
)


def trained(folder, *arguments):
    config = commandline.compose([*TINY, *arguments])
    [trial] = run_trials(config, datasets.load(config["dataset"]), folder)
    return trial.path


@pytest.fixture(scope="module")
def signal(tmp_path_factory):
    settings = ("dataset=sinusoids", "dataset.length=40", "model=hmlstm", "model.cell_args.num_layers=4")
    return trained(tmp_path_factory.mktemp("signal"), *settings)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    (folder / "words.txt").write_text("the quick brown fox jumps over the lazy dog " * 60)
    settings = ("dataset=text", f"dataset.path={folder}/words.txt", "dataset.length=30", "model=hmlstm")
    return trained(folder, *settings, "model.cell_args.boundary=step")


@pytest.fixture
def see(monkeypatch, capsys, tmp_path):
    """Runs the command in this process, and returns its output."""

    def command(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["seqmem.boundaries", *map(str, arguments)])
        capsys.readouterr()
        boundaries.main()
        shown = capsys.readouterr()
        assert shown.err == ""
        return shown.out

    return command


def result(trial):
    return json.loads((trial / "record.json").read_text())["result"]


def test_a_signals_boundaries_are_counted_and_drawn(signal, see):
    lines = see(signal).splitlines()
    recorded = result(signal)
    assert lines[0] == f"hmlstm on sinusoids, epoch 1: test mse {recorded['test/mse']:.4f} (0.2500 is irreducible)"
    rates = ", ".join(f"layer {k} {recorded[f'test/boundary_rate_{k}']:.4f}" for k in (1, 2, 3, 4))
    assert lines[1] == f"boundary rates: {rates}"
    assert lines[2:] == [f"picture: {signal / 'boundaries_test.png'}"]
    assert (signal / "boundaries_test.png").read_bytes().startswith(b"\x89PNG")


def test_options_and_changed_data(signal, see, tmp_path):
    checkpoint = signal / "checkpoints" / "last.ckpt"
    given = ("split=validation", "picture=mine.pdf", "sequence=2", "dataset.length=50", "train.limit_val_batches=1")
    lines = see(checkpoint, *given).splitlines()
    assert re.fullmatch(r"hmlstm on sinusoids, epoch 1: validation mse \d+\.\d+ \(0.2500 is irreducible\)", lines[0])
    assert f"{result(signal)['val/mse']:.4f}" not in lines[0]
    assert lines[2] == "picture: mine.pdf"
    assert (tmp_path / "mine.pdf").exists()
    same = see(checkpoint, "split=validation").splitlines()[0]
    assert f"validation mse {result(signal)['val/mse']:.4f}" in same


def test_a_texts_boundaries_are_printed_by_rows_however_it_is_cut(text, see, tmp_path):
    whole = see(text, "smoke_test=false", "characters=70")
    lines = whole.splitlines()
    assert re.fullmatch(r"hmlstm on text words, epoch 1: test bpc \d\.\d{4}", lines[0])
    assert re.fullmatch(r"boundary rates: layer 1 0\.\d{4}, layer 2 0\.\d{4}", lines[1])
    part = ("the quick brown fox jumps over the lazy dog " * 60)[-132:]  # the last 5 %
    first, second = lines[3:8], lines[8:13]
    assert (first[3], second[3]) == (part[1:61], part[61:71])
    for row, length in ((first, 60), (second, 10)):
        assert [len(line) for line in row] == [length] * 4 + [0]
        assert set(row[0] + row[1]) <= {"0", "1"}
    assert lines[13:] == [f"picture: {text / 'boundaries_test.png'}"]
    cut = see(text, "smoke_test=false", "characters=70", "dataset.length=7")
    assert cut == whole
    (tmp_path / "other.txt").write_text("another text of the same alphabet " * 20)
    other = see(text, "dataset=text", "dataset.path=other.txt", "characters=20", "sequence=0")
    assert "hmlstm on text other, epoch 1" in other


def test_a_data_set_with_one_output_for_each_sequence_has_rates_and_no_picture(see, tmp_path):
    trial = trained(tmp_path, "dataset=digits", "model=hmlstm")
    lines = see(trial).splitlines()
    assert f"test accuracy {result(trial)['test/accuracy']:.4f}" in lines[0]
    assert lines[1].startswith("boundary rates: layer 1 ")
    assert lines[2] == "no picture: digits has no value or character to predict at every step"
    assert not (trial / "boundaries_test.png").exists()


def test_mistakes_are_named(signal, tmp_path):
    """Those of the command line alone are in test_finished_trial.py."""
    gru = trained(tmp_path, "dataset=sinusoids", "dataset.length=20", "model=gru")
    for trial, argument, message in (
        (signal, "picture=x.jpegg", "picture: got x.jpegg, expected a name that ends in one of"),
        (signal, "sequence=50", "sequence: got 50, expected less than 8, the sequences that were read"),
        (signal, "dataset.channels=2", "sinusoids has input_size=2, expected input_size=1"),
        (signal, "dataset=digits", "digits has output_size=10, expected output_size=1"),
        (gru, "split=test", "best.ckpt: got a checkpoint of gru, expected a model with boundaries (model=hmlstm)"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            boundaries.run(*finished_trial.read([str(trial), argument], boundaries.Keys))
