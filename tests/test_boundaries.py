"""``python -m seqmem.boundaries CHECKPOINT``: what it prints and draws for a signal and a text; its errors in one line."""

import json
import re

import pytest
import torch

from tests import program

TINY = (
    "smoke_test=True",
    "train.batch_size=4",
    "train.lr=0.01",
    "output_dir=runs",
    "model.preset=tiny",
    "runner.accelerator=cpu",
)


def trained(folder, *arguments):
    done = program.run(["train.py", *TINY, *arguments], folder)
    assert done.returncode == 0, done.stderr
    [trial] = folder.glob("runs/*/seed_0")
    return trial


@pytest.fixture(scope="module")
def signal(tmp_path_factory):
    settings = ("dataset=sinusoids", "dataset.length=40", "model=hmlstm", "model.cell_args.num_layers=4")
    return trained(tmp_path_factory.mktemp("signal"), *settings)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    (folder / "words.txt").write_text("the quick brown fox jumps over the lazy dog " * 60)
    settings = ("dataset=text", "dataset.path=words.txt", "dataset.length=30", "model=hmlstm", "model.cell_args.boundary=step")
    return trained(folder, *settings)


def see(*arguments, cwd):
    done = program.run(["-m", "seqmem.boundaries", *map(str, arguments)], cwd)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def result(trial):
    return json.loads((trial / "record.json").read_text())["result"]


def test_a_signals_boundaries_are_counted_and_drawn(signal, tmp_path):
    lines = see(signal, cwd=tmp_path).splitlines()
    recorded = result(signal)
    assert lines[0] == f"hmlstm on sinusoids, epoch 1: test mse {recorded['test/mse']:.4f} (0.2500 is irreducible)"
    rates = ", ".join(f"layer {k} {recorded[f'test/boundary_rate_{k}']:.4f}" for k in (1, 2, 3, 4))
    assert lines[1] == f"boundary rates: {rates}"
    assert lines[2:] == [f"the picture is {signal / 'boundaries_test.png'}"]
    assert (signal / "boundaries_test.png").read_bytes().startswith(b"\x89PNG")


def test_options_and_changed_data(signal, tmp_path):
    checkpoint = signal / "checkpoints" / "last.ckpt"
    given = ("split=validation", "picture=mine.pdf", "sequence=2", "dataset.length=50", "train.limit_val_batches=1")
    lines = see(checkpoint, *given, cwd=tmp_path).splitlines()
    assert re.fullmatch(r"hmlstm on sinusoids, epoch 1: validation mse \d+\.\d+ \(0.2500 is irreducible\)", lines[0])
    assert f"{result(signal)['val/mse']:.4f}" not in lines[0]
    assert lines[2] == "the picture is mine.pdf"
    assert (tmp_path / "mine.pdf").exists()
    same = see(checkpoint, "split=validation", cwd=tmp_path).splitlines()[0]
    assert f"validation mse {result(signal)['val/mse']:.4f}" in same


def test_a_texts_boundaries_are_printed_by_rows_however_it_is_cut(text):
    folder = text.parents[2]
    whole = see(text, "smoke_test=false", "characters=70", cwd=folder)
    lines = whole.splitlines()
    assert re.fullmatch(r"hmlstm on text words, epoch 1: test bpc \d\.\d{4}", lines[0])
    assert re.fullmatch(r"boundary rates: layer 1 0\.\d{4}, layer 2 0\.\d{4}", lines[1])
    part = ("the quick brown fox jumps over the lazy dog " * 60)[-132:]  # the last 5 %
    first, second = lines[3:8], lines[8:13]
    assert (first[3], second[3]) == (part[1:61], part[61:71])
    for row, length in ((first, 60), (second, 10)):
        assert [len(line) for line in row] == [length] * 4 + [0]
        assert set(row[0] + row[1]) <= {"0", "1"}
    assert lines[13:] == [f"the picture is {text / 'boundaries_test.png'}"]
    cut = see(text, "smoke_test=false", "characters=70", "dataset.length=7", cwd=folder)
    assert cut == whole
    (folder / "other.txt").write_text("another text of the same alphabet " * 20)
    other = see(text, "dataset=text", "dataset.path=other.txt", "characters=20", "sequence=0", cwd=folder)
    assert "hmlstm on text other, epoch 1" in other


def test_a_data_set_with_one_answer_a_sequence_has_rates_and_no_picture(tmp_path):
    trial = trained(tmp_path, "dataset=digits", "model=hmlstm")
    lines = see(trial, cwd=tmp_path).splitlines()
    assert f"test accuracy {result(trial)['test/accuracy']:.4f}" in lines[0]
    assert lines[1].startswith("boundary rates: layer 1 ")
    assert lines[2] == "no picture: digits does not ask for a value or a character at every step"
    assert not (trial / "boundaries_test.png").exists()


def test_help_names_every_key_of_the_command(tmp_path):
    shown = see("--help", cwd=tmp_path)
    for key in ("CHECKPOINT", "split=", "sequence=", "characters=", "picture=", "dataset=NAME"):
        assert key in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected a checkpoint or the folder of a finished trial first"),
        (("split=test",), "expected a checkpoint or the folder of a finished trial first"),
        (("nowhere.ckpt",), "cannot read the checkpoint nowhere.ckpt"),
        (("words.txt",), "words.txt is not a checkpoint"),
        (("plain.pt",), "plain.pt is not a checkpoint of train.py"),
        ((".",), ". holds no checkpoints/best.ckpt"),
        (("TRIAL", "split=tset"), "split: got 'tset', expected 'test' or 'validation'; did you mean 'test'?"),
        (("TRIAL", "splt=test"), "there is no key 'splt'; did you mean 'split'?"),
        (("TRIAL", "dataset.lenght=50"), "did you mean 'length'?"),
        (("TRIAL", "dataset=sinusoid"), "did you mean 'sinusoids'?"),
        (("TRIAL", "train.batch=5"), "did you mean 'batch_size'?"),
        (("TRIAL", "model.cell=lstm"), "model.cell: the model of a finished trial stays as it was trained"),
        (("TRIAL", "sequence=1,2"), "cannot read 'sequence=1,2': expected KEY=VALUE, one value to a key"),
        (("TRIAL", "+new=1"), "cannot read '+new=1': expected KEY=VALUE"),
        (("TRIAL", "length"), "cannot read 'length': expected KEY=VALUE"),
        (("TRIAL", "--cfg", "job"), "got --cfg, expected CHECKPOINT [KEY=VALUE ...]"),
        (("TRIAL", "picture=x.jpegg"), "picture: got x.jpegg, expected a name that ends in one of"),
        (("TRIAL", "sequence=50"), "sequence: got 50, expected less than 20, the sequences that were read"),
        (("TRIAL", "dataset.channels=2"), "sinusoids has input_size=2, expected input_size=1"),
        (("TRIAL", "dataset=digits"), "digits has output_size=10, expected output_size=1"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message, signal, tmp_path):
    (tmp_path / "words.txt").write_text("not a checkpoint")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "plain.pt")
    arguments = [str(signal) if argument == "TRIAL" else argument for argument in arguments]
    done = program.run(["-m", "seqmem.boundaries", *arguments], tmp_path)
    assert done.returncode == 2
    assert "picture" not in done.stdout
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_a_model_without_boundaries_is_named(tmp_path):
    trial = trained(tmp_path, "dataset=sinusoids", "dataset.length=20", "model=gru")
    done = program.run(["-m", "seqmem.boundaries", str(trial)], tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(
        r"error: .*best\.ckpt is a checkpoint of gru, which finds no boundaries; model=hmlstm does\n", done.stderr
    )
