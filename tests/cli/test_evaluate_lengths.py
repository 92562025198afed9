"""``python evaluate.py TRIAL lengths=A,B,...``: one table, file and picture; kept evaluations; mistakes and interruptions."""

import csv
import json
import re
import shutil
from dataclasses import replace

import pytest
import torch

from seqmem import datasets
from seqmem.cli import by_length, commandline, evaluate, finished_trial
from seqmem.data import Batch
from seqmem.errors import UserError
from seqmem.io.interrupts import Interrupted
from seqmem.results import by_length as results
from seqmem.results.record import RunFolder
from seqmem.training.checkpoints.files import read_checkpoint, restore
from seqmem.training.config import TrainConfig
from seqmem.training.evaluation import by_length as reading
from tests.trials import run_trials

TINY = ("train.epochs=1", "train.batch_size=4", "train.limit_train_batches=2", "runner.accelerator=cpu", "model.preset=tiny")
FEW = ("dataset.train_samples=9", "dataset.validation_samples=5", "dataset.test_samples=7")
COPYING = ("dataset=copying", "dataset.length=11", "dataset.tokens=3", *FEW)


def train(folder, *overrides):
    config = commandline.compose([*TINY, *overrides])
    [trial] = run_trials(config, datasets.load(config["dataset"]), folder)
    return trial.path


@pytest.fixture(scope="module")
def copying(tmp_path_factory):
    """A finished trial on sequences of 17 steps, of length 11."""
    return train(tmp_path_factory.mktemp("copying"), "model=gru", *COPYING)


@pytest.fixture
def trial(copying, tmp_path):
    """A copy of that trial without evaluations."""
    path = tmp_path / "seed_0"
    path.mkdir()
    for name in ("record.json", "config.yaml"):
        (path / name).write_bytes((copying / name).read_bytes())
    (path / "checkpoints").mkdir()
    (path / "checkpoints" / "best.ckpt").write_bytes((copying / "checkpoints" / "best.ckpt").read_bytes())
    return path


def run(trial, *arguments):
    evaluate.run(*finished_trial.read([str(trial), *arguments], evaluate.Keys))


def rows(trial, name="by_length.csv"):
    with open(trial / "evaluations" / name, newline="") as file:
        return list(csv.DictReader(file))


def records(trial):
    return [json.loads(path.read_text()) for path in sorted(trial.glob("evaluations/*.json"))]


def naive(trial, length):
    """Loss and accuracy of the model on whole sequences of one batch."""
    checkpoint = read_checkpoint(trial)
    data = datasets.load({**checkpoint.config["dataset"], "length": length})
    module = restore(checkpoint, checkpoint.config["train"], data.spec).eval()
    batch = data.batch("test", torch.arange(7))
    with torch.no_grad():
        logits = module.model(batch)
    logarithms = logits.log_softmax(-1).gather(-1, batch.targets[..., None])
    return float(-logarithms.mean()), float((logits.argmax(-1) == batch.targets).double().mean())


def test_each_length_is_a_line_of_one_table_and_file(trial, capsys):
    run(trial, "lengths=600,11,30,11")
    printed = capsys.readouterr().out.splitlines()
    written = rows(trial)
    assert [(row["length"], row["steps"], row["n"]) for row in written] == [
        ("11", "17", "7"),
        ("30", "36", "7"),
        ("600", "606", "7"),  # in parts of 256 steps
    ]
    for row in written:
        loss, accuracy = naive(trial, int(row["length"]))
        assert float(row["accuracy"]) == pytest.approx(accuracy)
        assert float(row["loss"]) == pytest.approx(loss, rel=1e-5)
    tested = RunFolder(trial).read_record()["result"]
    assert (float(written[0]["accuracy"]), float(written[0]["loss"])) == (tested["test/accuracy"], tested["test/loss"])
    assert printed[1].split()[:3] == ["length", "steps", "accuracy"]
    assert [line.split()[0] for line in printed[2:5]] == ["11", "30", "600"]
    assert "training length: 11" in printed
    assert (trial / "evaluations" / "by_length.png").read_bytes().startswith(b"\x89PNG")
    parts = {each["by_length"]["length"]: each["by_length"] for each in records(trial)}
    assert {length: part["steps_at_once"] for length, part in parts.items()} == {11: None, 30: None, 600: 256}
    data = datasets.load({**read_checkpoint(trial).config["dataset"], "length": 600})
    batch = data.batch("test", torch.arange(7))
    read = reading.Read()
    read.observe(batch, {})
    assert records(trial)[-1]["read"] == read.checksums()


@pytest.mark.parametrize("targets", [torch.tensor([3, 4]), torch.tensor([[1, 2, 3], [4, 0, 0]])])
def test_checksums_of_sequences_do_not_depend_on_the_batch(targets):
    together, apart = reading.Read(), reading.Read()
    together.observe(Batch(torch.tensor([[1, 2, 3], [4, 0, 0]]), targets, lengths=torch.tensor([3, 1])), {})
    for tokens, target in (([[1, 2, 3]], targets[:1]), ([[4]], targets[1:] if targets.dim() == 1 else targets[1:, :1])):
        apart.observe(Batch(torch.tensor(tokens), target), {})
    assert together.checksums() == apart.checksums()


def test_lengths_that_are_known_are_not_evaluated_again(trial, capsys, monkeypatch):
    made = []
    evaluated = reading.evaluate

    def counting(module, data, *others):
        made.append(data.spec.max_length - 6)
        return evaluated(module, data, *others)

    monkeypatch.setattr(reading, "evaluate", counting)
    run(trial, "lengths=20,11")
    run(trial, "lengths=20,40", "train.eval_batch_size=2")
    assert made == [11, 20, 40]
    assert [row["length"] for row in rows(trial)] == ["11", "20", "40"]
    assert "1 of 2 lengths had been evaluated with the same weights, data and code" in capsys.readouterr().out
    run(trial, "lengths=20", "again=true")
    assert made == [11, 20, 40, 20]
    run(trial, "lengths=20", "dataset.test_samples=3")
    assert made == [11, 20, 40, 20, 20]
    assert [(row["length"], row["n"]) for row in rows(trial)] == [("11", "7"), ("20", "3"), ("40", "7")]
    run(trial, "lengths=20", "dataset.seed=5")  # other sequences: a file of their own
    assert made == [11, 20, 40, 20, 20, 20]
    assert [(row["length"], row["n"]) for row in rows(trial)] == [("11", "7"), ("20", "3"), ("40", "7")]
    run(trial, "lengths=11")
    assert [(row["length"], row["n"]) for row in rows(trial)] == [("11", "7"), ("20", "7"), ("40", "7")]  # the most sequences
    [other] = [path.name for path in trial.glob("evaluations/by_length_*.csv")]
    assert [row["length"] for row in rows(trial, other)] == ["20"]
    assert "dataset.seed=5\n" in capsys.readouterr().out
    monkeypatch.setattr(by_length, "computed", lambda *_: {"code": "another version"})
    run(trial, "lengths=20", "dataset.seed=5")
    assert len(made) == 7


def test_each_trial_of_a_folder_is_evaluated(copying, trial, tmp_path, monkeypatch, capsys):
    other = tmp_path / "seed_1"
    shutil.copytree(trial, other)
    record = json.loads((other / "record.json").read_text())
    (other / "record.json").write_text(json.dumps({**record, "seed": 1}))
    shutil.copytree(trial, tmp_path / "seed_2")
    (tmp_path / "seed_2" / "record.json").write_text(json.dumps({**record, "seed": 2, "status": "failed", "reason": "x"}))
    monkeypatch.setattr("sys.argv", ["evaluate.py", str(tmp_path), "lengths=20,30"])
    evaluate.main()
    assert [[row["length"] for row in rows(path)] for path in (trial, other)] == [["20", "30"]] * 2
    assert not (tmp_path / "seed_2" / "evaluations").exists()
    assert capsys.readouterr().out.count("gru on copying") == 2
    monkeypatch.setattr("sys.argv", ["evaluate.py", str(tmp_path), "lengths=20", "dataset.pairs=4"])
    with pytest.raises(SystemExit):
        evaluate.main()
    assert f"error: {trial} lengths=20 dataset.pairs=4: " in capsys.readouterr().err


def test_an_interruption_keeps_the_lengths_that_are_done(trial, monkeypatch):
    evaluated, stops = reading.evaluate, [False, True]

    def interrupted(*arguments):
        if stops.pop(0):
            raise Interrupted
        return evaluated(*arguments)

    monkeypatch.setattr(reading, "evaluate", interrupted)
    with pytest.raises(Interrupted):
        run(trial, "lengths=20,30")
    assert [each["by_length"]["length"] for each in records(trial)] == [20]
    assert [path.suffix for path in (trial / "evaluations").iterdir()] == [".json"]
    stops += [False]
    run(trial, "lengths=20,30")
    assert not stops
    assert [row["length"] for row in rows(trial)] == ["20", "30"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lengths=0"], "lengths: got 0, expected whole numbers of at least 1, separated by commas"),
        (["lengths=20,-3"], "lengths: got -3, expected whole"),
        (["lengths=20,many"], "lengths: got 'many', expected whole"),
        (["lengths=1.5"], "lengths: got 1.5, expected whole"),
        (["lengths=true"], "lengths: got True, expected whole"),
        (["lengths="], "lengths: got '', expected whole"),
        (["lengths=[]"], "lengths: got [], expected whole"),
        (["lengths=glob(*)"], "got 'lengths=glob(*)', expected lengths=A,B,..."),
        (["lengths=interval(1,2)"], "got 'lengths=interval(1,2)', expected lengths=A,B,..."),
        (["length=20"], "length: no such key; did you mean 'lengths' or 'dataset.length'?"),
        (["lenghts=20"], "lenghts: no such key; did you mean 'lengths'?"),
        (["lengths=20", "predictions=a.csv"], "predictions: got a.csv with several lengths; give dataset.length=L"),
        (["lengths=20", "split=train"], "split: got train with several lengths, expected test"),
        (["again=true"], "again: got true without lengths, expected lengths=A,B,..."),
        (["split=test,train"], "got 'split=test,train', expected KEY=VALUE with one value"),
        (
            ["lengths=20", "dataset=digits"],
            "lengths: got 20, but the sequences of digits have no length to choose",
        ),
        (["lengths=20", "dataset=findmax"], "findmax has output_size=21, expected output_size=10"),
    ],
)
def test_mistakes_are_named_and_leave_nothing(arguments, message, trial):
    with pytest.raises(UserError, match=re.escape(message)):
        run(trial, *arguments)
    assert not (trial / "evaluations").exists()


def test_a_length_that_is_not_possible_is_refused_before_others_are_evaluated(tmp_path):
    trial = train(tmp_path, "dataset=sinusoids", "dataset.length=20", "dataset.horizon=5", "model=lstm", *FEW)
    with pytest.raises(UserError, match=r"dataset\.horizon: got 5, expected less than dataset\.length=4"):
        run(trial, "lengths=40,4")
    assert not (trial / "evaluations").exists()
    run(trial, "lengths=range(20,41,10)")  # outputs at every step
    assert [row["steps"] for row in rows(trial)] == ["15", "25", "35"]
    tested = RunFolder(trial).read_record()["result"]
    assert float(rows(trial)[0]["mse"]) == tested["test/mse"]


def test_lengths_of_the_test_alone_are_those_of_its_sequences(tmp_path):
    lengths = ("dataset.length=6", "dataset.min_length=3", "dataset.test_length=12")
    trial = train(tmp_path, "dataset=parity", "model=gru", *lengths, *FEW)
    run(trial, "lengths=2,9")
    assert [(row["length"], row["steps"], row["n"]) for row in rows(trial)] == [("2", "3", "7"), ("9", "10", "7")]
    [mark] = {tuple(results.training_lengths(each["config"])) for each in records(trial)}
    assert mark == (3, 6)


def test_a_model_with_weights_for_each_step_is_refused(tmp_path):
    trial = train(tmp_path, "dataset=adding", "dataset.length=20", "model=igloo", *FEW)
    message = "lengths: got sequences of 21 steps, expected at most 20, for which igloo was built: it has weights for each step"
    with pytest.raises(UserError, match=re.escape(message)):
        run(trial, "lengths=10,21")
    assert not (trial / "evaluations").exists()
    run(trial, "lengths=10,20")
    assert [row["length"] for row in rows(trial)] == ["10", "20"]


def test_a_stack_carries_its_states_unless_it_pools_all_steps(copying):
    checkpoint = read_checkpoint(copying)
    model = {"network": "stack", "mixer": "lru", "mixer_args": {"hidden_size": 4}, "model_size": 4, "num_layers": 1}

    def carries(spec, **changes):
        return reading.carries(replace(checkpoint, spec=spec, config={**checkpoint.config, "model": {**model, **changes}}))

    several, single = checkpoint.spec, replace(checkpoint.spec, output_steps=0)
    assert carries(several)
    assert carries(replace(single, answers_at_end=True))
    assert carries(single, pooling="last")
    assert not carries(single)
    assert not carries(several, bidirectional=True)


def test_batches_have_the_memory_of_those_of_the_training(copying):
    checkpoint = read_checkpoint(copying)
    spec, settings = checkpoint.spec, TrainConfig(**checkpoint.config["train"])

    def chosen(steps, given=False, **changes):
        found = reading.Reading.of(checkpoint, replace(spec, max_length=steps, **changes), settings, given)
        return found.rows, found.steps

    assert [chosen(steps) for steps in (5, 17, 256, 257, 2**20, 2**24)] == [
        (4, None),
        (4, None),
        (1, None),
        (4, 256),
        (4, 256),
        (2, 256),
    ]
    assert chosen(2**24, given=True) == (4, 256)
    assert chosen(2**20, tokens=False, input_size=16) == (2, 256)
    assert chosen(2**20, output_steps=None, output_size=32) == (1, 256)
