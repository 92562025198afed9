"""``python -m seqmem.predict``: from a table of one's own to predictions for new rows, for every task."""

import csv
import json
import shlex

import numpy as np
import pytest
import torch

from seqmem import datasets
from seqmem.cli import commandline, predict
from seqmem.data.preparation import Preparation
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.io.collection import Reading
from seqmem.io.sources import read_source
from seqmem.training.checkpoints.files import read_checkpoint, restore
from seqmem.training.evaluation.new_series import Written, times_at
from tests import program
from tests.trials import run_trials

TINY = ("dataset=files", "model=gru", "model.preset=tiny", "train.epochs=2", "train.lr=0.02", "runner.accelerator=cpu")


def table(path, series, labels=True, seed=0):
    """Write a long table of series of three classes, whose second channel is far from 0."""
    random = np.random.default_rng(seed)
    lines = ["name;time;x;y" + (";label" if labels else "")]
    for k in range(series):
        for t in range(int(random.integers(8, 14))):
            values = (np.sin(t * (k % 3 + 1) / 3), 1000 + 50 * np.cos(t * (k % 3 + 1) / 3) + random.normal())
            cells = [f"s{k}", str(t), *(f"{value:.4f}".replace(".", ",") for value in values)]
            lines.append(";".join(cells + (["sit still", "walk", "run"][k % 3 : k % 3 + 1] if labels else [])))
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Makes a finished trial of a table or another file, once."""
    made = {}

    def make(*keys, file=None):
        if (keys, file) not in made:
            folder = tmp_path_factory.mktemp("trial")
            path = table(folder / "own.csv", 30) if file is None else file
            own = () if file else ("dataset.id_column=name",)
            config = commandline.compose([*TINY, f"dataset.path={path}", *own, *keys])
            data = datasets.load(config["dataset"])
            [trial] = run_trials(config, data, folder)
            made[keys, file] = trial.path, data
        return made[keys, file]

    return make


@pytest.fixture
def run(capsys, tmp_path):
    """Runs the command in this process, and returns the rows that it wrote and the text that it printed."""

    def command(*arguments):
        out = tmp_path / "predictions.csv"
        out.unlink(missing_ok=True)
        capsys.readouterr()
        predict.main([*map(str, arguments), "--out", str(out)])
        with open(out, newline="") as file:
            return list(csv.DictReader(file)), capsys.readouterr().out

    return command


@pytest.fixture
def refused(capsys, tmp_path):
    """Runs the command, and returns the line of its error."""

    def command(*arguments):
        with pytest.raises(SystemExit) as ended:
            predict.main([*map(str, arguments), "--out", str(tmp_path / "refused.csv")])
        assert ended.value.code == 2
        assert not (tmp_path / "refused.csv").exists()
        [line] = capsys.readouterr().err.splitlines()
        return line

    return command


def everything(trial, data, split):
    checkpoint = read_checkpoint(trial)
    module = restore(checkpoint, checkpoint.config["train"], data.spec).eval()
    batch = data.batch(split, torch.arange(data.sizes[split]))
    with torch.no_grad():
        return batch, module.model(batch)


def test_new_series_are_classified_as_those_of_the_training(trained, run, tmp_path):
    """The same series, without their labels, get the numbers that the model gives for the prepared splits."""
    trial, data = trained()
    rows, printed = run(trial, table(tmp_path / "new.csv", 30, labels=False))
    assert [row["series"] for row in rows] == [f"s{k}" for k in range(30)]
    assert list(rows[0]) == ["series", "prediction", "probability run", "probability sit still", "probability walk"]
    names = data.spec.class_names
    for row in rows:
        probabilities = [float(row[f"probability {name}"]) for name in names]
        assert sum(probabilities) == pytest.approx(1)
        assert row["prediction"] == names[int(np.argmax(probabilities))]
    expected = sorted(
        each for split in datasets.SPLITS for each in everything(trial, data, split)[1].softmax(-1)[:, 0].tolist()
    )
    np.testing.assert_allclose(sorted(float(row["probability run"]) for row in rows), expected, rtol=1e-4)
    assert "predictions for 30 series" in printed
    assert "predicted: " in printed


def test_labels_that_are_known_are_compared(trained, run, tmp_path):
    trial, _ = trained()
    rows, printed = run(trial, table(tmp_path / "new.csv", 12, seed=1))
    assert [row["label"] for row in rows] == ["sit still", "walk", "run"] * 4
    right = sum(row["label"] == row["prediction"] for row in rows)
    assert f"{right} of 12 labels are predicted correctly" in printed


def test_a_single_short_series_in_another_order_of_columns(trained, run, tmp_path):
    trial, _ = trained()
    (tmp_path / "new.csv").write_text("y,remark,time,x,name\n1000,good,0,0.5,one\n")
    [row], _ = run(trial, tmp_path / "new.csv")
    assert row["series"] == "one"


def test_values_of_a_regression_in_their_unit(trained, run, tmp_path):
    path = tmp_path / "weights.csv"
    lines = [f"{k},{t},{k + t},{5000 + 10 * k}" for k in range(20) for t in range(5)]
    path.write_text("id,time,x,weight\n" + "\n".join(lines))
    trial, data = trained("dataset.task=regression", "dataset.label_column=weight", file=path)
    (tmp_path / "new.csv").write_text("id,time,x\n" + "\n".join(line.rsplit(",", 1)[0] for line in lines))
    rows, _ = run(trial, tmp_path / "new.csv")
    assert list(rows[0]) == ["series", "predicted weight"]
    train = [5000 + 10 * int(name) for name in data.sequence_names("train")]
    expected = {}
    for split in datasets.SPLITS:
        values = everything(trial, data, split)[1][:, 0].double().numpy() * np.std(train) + np.mean(train)
        expected |= dict(zip(data.sequence_names(split), values.tolist(), strict=True))
    assert {row["series"]: float(row["predicted weight"]) for row in rows} == pytest.approx(expected, rel=1e-6)
    assert np.std(list(expected.values())) > 0.01


def test_forecasts_in_their_unit_after_the_last_step(trained, run, tmp_path):
    path = tmp_path / "prices.csv"
    path.write_text("day,price\n" + "\n".join(f"{5 + 2 * t},{500 + t % 7}" for t in range(200)))
    trial, data = trained("dataset.task=forecasting", "dataset.horizon=3", "dataset.time_column=day", file=path)
    rows, _ = run(trial, path)
    assert [(row["series"], row["step"]) for row in rows] == [("prices", str(200 + k)) for k in range(3)]
    assert [row["time"] for row in rows] == ["405", "407", "409"]
    assert all(495 < float(row["price"]) < 512 for row in rows)
    checkpoint = read_checkpoint(trial)
    module = restore(checkpoint, checkpoint.config["train"], data.spec).eval()
    prepared = (np.array([500 + t % 7 for t in range(200)]) - data.preparation()["mean"]) / data.preparation()["deviation"]
    with torch.no_grad():
        outputs = module.model.predict(torch.tensor(prepared[-100:, None], dtype=torch.float32)[None])[0, -3:, 0]
    expected = outputs.numpy() * data.preparation()["deviation"] + data.preparation()["mean"]
    np.testing.assert_allclose([float(row["price"]) for row in rows], expected, rtol=1e-6)
    (tmp_path / "dates.csv").write_text("day,price\n2024-02-27,500\n2024-02-28,501\n2024-02-29,502\n2024-03-01T00:00,503\n")
    rows, _ = run(trial, tmp_path / "dates.csv")
    assert [row["time"] for row in rows] == [f"2024-03-0{day}T00:00:00" for day in (2, 3, 4)]


def test_a_forecast_of_more_steps_than_the_series_has_begins_later(trained, run, tmp_path):
    path = tmp_path / "hours.csv"
    path.write_text("time,x\n" + "\n".join(f"{1000 + t},{t % 5}" for t in range(300)))
    trial, _ = trained("dataset.task=forecasting", "dataset.horizon=7", "dataset.window=5", file=path)
    rows, printed = run(trial, path)
    assert [(row["step"], row["time"]) for row in rows] == [(str(step), str(1000 + step)) for step in range(302, 307)]
    assert "1 of 1 series give the model fewer steps than dataset.horizon=7" in printed
    (tmp_path / "short.csv").write_text("time,x\n" + "\n".join(f"{50 + t},{t % 5}" for t in range(3)))
    rows, _ = run(trial, tmp_path / "short.csv")
    assert [(row["step"], row["time"]) for row in rows] == [(str(step), str(50 + step)) for step in (7, 8, 9)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["2024-01-29", "2024-01-30", "2024-01-31"], ["2024-02-01T00:00:00", "2024-02-02T00:00:00"]),
        (["2024-01-01", "2024-02-01", "2024-03-01", "2024-04-01"], ["2024-05-01T00:00:00", "2024-06-01T00:00:00"]),
        (["2023-12-31", "2024-01-31", "2024-02-29", "2024-03-31"], ["2024-04-30T00:00:00", "2024-05-31T00:00:00"]),
        ([f"2024-02-0{day}" for day in (1, 2, 5, 6, 7, 8, 9)], ["2024-02-12T00:00:00", "2024-02-13T00:00:00"]),
        (
            ["2024-06-20T22:59:00+02:00", "2024-06-20T23:00:00+02:00"],
            ["2024-06-20T21:01:00+00:00", "2024-06-20T21:02:00+00:00"],
        ),
        (
            ["2024-01-01T00:00:00.0001", "2024-01-01T00:00:00.0002"],
            ["2024-01-01T00:00:00.000300", "2024-01-01T00:00:00.000400"],
        ),
        (["20241229", "20241230", "20241231"], ["2025-01-01T00:00:00", "2025-01-02T00:00:00"]),
        ([f"2024-0{month}-15" for month in (1, 2, 3)], ["2024-04-15T00:00:00", "2024-05-15T00:00:00"]),
        (
            [f"2024-01-0{day}T{hour:02}:00" for day in (2, 3, 4) for hour in range(8, 16)],
            ["2024-01-04T16:00:00", "2024-01-04T17:00:00"],
        ),
        (["2024-01-01", "2024-01-03", "2024-01-04", "2024-01-05"], ["2024-01-06T00:00:00", "2024-01-07T00:00:00"]),
        ([str(1706700000000 + k) for k in range(3)], ["1706700000003", "1706700000004"]),
        (["0.1", "0.2", "0.3"], ["0.4", "0.5"]),
        (["7"], ["", ""]),
        (["2024-01-31"], ["", ""]),
    ],
    ids=lambda each: each[0],
)
def test_times_go_on_at_the_rhythm_and_in_the_resolution_of_the_series(tmp_path, before, after):
    (tmp_path / "own.csv").write_text("time,x\n" + "\n".join(f"{time},1" for time in before))
    found = read_source(tmp_path / "own.csv", Reading(target="none", single=True))
    assert times_at(found, 0, range(len(before), len(before) + 2)) == after


def test_times_of_arrays_go_on_where_they_end(tmp_path):
    np.savez(tmp_path / "own.npz", values=np.zeros((2, 3, 1)), times=np.array([[1000.0, 1001, 1002], [5, 7, 9]]))
    (tmp_path / "own.ts").write_text(
        "@problemName own\n@timeStamps true\n@missing false\n@univariate true\n@equalLength true\n@seriesLength 3\n"
        "@classLabel true a b\n@data\n(1000,1),(1001,1),(1002,1):a\n(5,1),(7,1),(9,1):b\n"
    )
    for name in ("own.npz", "own.ts"):
        found = read_source(tmp_path / name, Reading(target="none"))
        assert [times_at(found, k, [3]) for k in range(2)] == [["1003"], ["11"]]


def test_columns_of_a_wide_table_are_the_steps_of_the_training_in_any_order(trained, run, refused, tmp_path):
    names, rows = ["id", "label", *(f"t{t}" for t in range(6))], []
    for k in range(20):
        rows.append([f"s{k}", "ab"[k % 2], *(f"{k % 2 + t / 8}" for t in range(6))])

    def write(name, names, rows):
        (tmp_path / name).write_text("\n".join(",".join(row) for row in [names, *rows]))
        return tmp_path / name

    trial, _ = trained(file=write("own.csv", names, rows))
    expected, _ = run(trial, tmp_path / "own.csv")
    turned = [["id", "age", *names[:1:-1]], *([row[0], "77", *row[:1:-1]] for row in rows)]
    found, _ = run(trial, write("new.csv", turned[0], turned[1:]))
    assert found == [{key: value for key, value in row.items() if key != "label"} for row in expected]
    longer, _ = run(trial, write("new.csv", ["id", "t6", *names[2:]], [[row[0], "3", *row[2:]] for row in rows]))
    assert longer[0] != found[0]
    others, _ = run(trial, write("new.csv", ["id", *"012345"], [[row[0], *row[2:]] for row in rows]))
    assert others == found
    assert "has no column 't0'" in refused(trial, write("new.csv", ["id", "a", "b"], [[row[0], *row[2:4]] for row in rows]))
    lacking = refused(trial, write("new.csv", [*names[:4], *names[5:]], [[*row[:4], *row[5:]] for row in rows]))
    assert "new.csv has no column 't2'" in lacking
    assert "expected the steps t0 to t5 as in the training, or the first of them" in lacking


def test_labels_are_compared_as_in_the_training(trained, run, tmp_path):
    """Numbers may have decimals, as pandas writes them beside an empty cell; a folder may have its table of labels."""
    rows = [f"s{k},{t},{k % 2 + t / 8},{k % 2}" for k in range(20) for t in range(4)]
    (tmp_path / "own.csv").write_text("id,time,x,label\n" + "\n".join(rows))
    trial, _ = trained(file=tmp_path / "own.csv")
    expected, printed = run(trial, tmp_path / "own.csv")
    right = sum(row["label"] == row["prediction"] for row in expected)
    (tmp_path / "new.csv").write_text("id,time,x,label\n" + "\n".join(f"{row}.0" for row in rows))
    assert f"{right} of 20 labels are predicted correctly" in run(trial, tmp_path / "new.csv")[1]
    (tmp_path / "new").mkdir()
    for k in range(20):
        (tmp_path / "new" / f"r{k}.csv").write_text("time,x\n" + "\n".join(f"{t},{k % 2 + t / 8}" for t in range(4)))
    (tmp_path / "new" / "labels.csv").write_text("file,label\n" + "\n".join(f"r{k},{k % 2}" for k in range(19)))
    found, printed = run(trial, tmp_path / "new")
    assert {row["series"]: row["label"] for row in found} == {f"r{k}": str(k % 2) if k < 19 else "" for k in range(20)}
    assert "of 19 labels are predicted correctly" in printed


def test_reconstructions_in_their_unit_with_errors(trained, run, tmp_path):
    trial, _ = trained("dataset.task=reconstruction", "model=lstm_ae")
    rows, _ = run(trial, table(tmp_path / "new.csv", 4, labels=False))
    assert list(rows[0]) == ["series", "step", "x", "y", "error"]
    assert [row["step"] for row in rows if row["series"] == "s0"][:3] == ["0", "1", "2"]
    assert all(800 < float(row["y"]) < 1200 and float(row["error"]) >= 0 for row in rows)


def test_the_file_of_a_regression_without_a_header_is_predicted_with_its_values(trained, run, tmp_path):
    rows = [[*(f"{k + t / 8:g}" for t in range(10)), str(5000 + 10 * k)] for k in range(20)]
    path = tmp_path / "own.csv"
    path.write_text("\n".join(",".join(row) for row in rows))
    trial, data = trained("dataset.task=regression", "dataset.label_column=10", file=path)
    found, _ = run(trial, path)
    assert [row["10"] for row in found] == [row[-1] for row in rows]
    assert all(abs(float(row["10"]) - float(row["predicted 10"])) < 300 for row in found)
    saved = data.preparation()
    assert (saved["column_count"], saved["optional_columns"]) == (11, ["10"])
    path.write_text("\n".join(",".join(row[:-1]) for row in rows))
    assert run(trial, path)[0] == [{key: value for key, value in row.items() if key != "10"} for row in found]


def test_columns_of_a_table_of_predictions_have_different_names(tmp_path):
    (tmp_path / "own.csv").write_text("id,when,v,w,predicted v\n" + "".join(f"s{k},0,1,2,3\n" for k in range(3)))
    keys = {
        "time_column": "when",
        "target": "value",
        "channel_columns": ("w",),
        "label_columns": ("v", "predicted v"),
        "layout": "long",
    }
    found = read_source(tmp_path / "own.csv", Reading(**keys))
    channels, zeros = ("error", "v", "step", "time", "channel error"), (0.0,) * 5
    preparation = Preparation(channels, zeros, zeros, zeros, target_names=found.target_names)
    headers = {}
    for task in ("reconstruction", "forecasting", "regression"):
        written = Written(found, preparation, DataSpec("own", 5, 5, task, None, 1), segments=None, horizon=1)
        headers[task] = written.header()
    renamed = ["channel channel error", "v", "channel step", "time", "channel error"]
    assert headers["reconstruction"] == ["series", "step", *renamed, "error"]
    assert headers["forecasting"] == ["series", "step", "time", "error", "v", "channel step", "channel time", "channel error"]
    assert headers["regression"] == ["series", "v", "value predicted v", "predicted v", "predicted predicted v"]


def test_wide_tables_without_a_header_with_and_without_labels(trained, run, tmp_path):
    lines = [[str(1 + k % 2), *(f"{k % 2 + t / 8 + k / 100:.3f}" for t in range(6))] for k in range(20)]
    (tmp_path / "own.tsv").write_text("\n".join("\t".join(line) for line in lines))
    trial, _ = trained("dataset.label_column=0", file=tmp_path / "own.tsv")
    labelled, printed = run(trial, tmp_path / "own.tsv")
    assert [row["label"] for row in labelled] == ["1", "2"] * 10
    assert "of 20 labels" in printed
    (tmp_path / "new.tsv").write_text("\n".join("\t".join(line[1:]) for line in lines))
    rows, _ = run(trial, tmp_path / "new.tsv")
    assert rows == [{key: value for key, value in row.items() if key != "label"} for row in labelled]


def test_groups_and_splits_of_a_wide_table_are_not_values(trained, run, tmp_path):
    lines = [
        [str(k // 4), ("train", "test")[k % 8 > 5], "ab"[k % 2], *(f"{k % 2 + t / 8}" for t in range(6))] for k in range(40)
    ]
    names = ["subject", "split", "label", *(f"t{t}" for t in range(6))]
    (tmp_path / "own.csv").write_text("\n".join(",".join(line) for line in [names, *lines]))
    trial, _ = trained("dataset.group_column=none", file=tmp_path / "own.csv")
    labelled, _ = run(trial, tmp_path / "own.csv")
    (tmp_path / "new.csv").write_text("\n".join(",".join(line[3:]) for line in [names, *lines]))
    rows, _ = run(trial, tmp_path / "new.csv")
    assert rows == [{key: value for key, value in row.items() if key != "label"} for row in labelled]


def test_arrays(trained, run, tmp_path):
    values, labels = np.random.default_rng(0).normal(size=(20, 6, 2)), ["b", "a"] * 10
    np.savez(tmp_path / "own.npz", values=values, labels=labels)
    trial, _ = trained(file=tmp_path / "own.npz")
    np.save(tmp_path / "new.npy", values[:5])
    rows, _ = run(trial, tmp_path / "new.npy")
    assert [row["series"] for row in rows] == ["0", "1", "2", "3", "4"]


def test_training_ends_with_the_command_that_predicts_by_the_best_trial(tmp_path):
    table(tmp_path / "own.csv", 30)
    table(tmp_path / "new.csv", 3, labels=False)
    command = ["train.py", *TINY, "dataset.path=own.csv", "dataset.id_column=name", "runner.ntrials=2", "output_dir=all runs"]
    *_, last = program.run(command, tmp_path).stdout.splitlines()
    name, *arguments = shlex.split(last.removeprefix("predict new series: "))
    values = {
        trial.parent: json.loads(trial.read_text())["result"]["val/accuracy"]
        for trial in tmp_path.glob("all runs/*/*/record.json")
    }
    assert len(values) == 2
    assert values[tmp_path / arguments[1]] == max(values.values())
    done = program.run(["-m", name, *(argument.replace("FILE", "new.csv") for argument in arguments)], tmp_path)
    assert "predictions for 3 series of new.csv in predictions.csv" in done.stdout
    assert (tmp_path / "predictions.csv").exists()


def test_mistakes_are_one_line(trained, refused, run, tmp_path):
    trial, _ = trained()
    new = table(tmp_path / "new.csv", 3, labels=False)
    assert "which does not exist" in refused(trial, tmp_path / "no.csv")
    (tmp_path / "other.csv").write_text("name,time,x\none,0,1\n")
    assert "got 'y', expected a column of" in refused(trial, tmp_path / "other.csv")
    np.save(tmp_path / "other.npy", np.zeros((2, 3, 2)))
    assert "got the channels x0, x1, expected x, y as in the training" in refused(trial, tmp_path / "other.npy")
    assert "is not a checkpoint" in refused(new, new)
    (tmp_path / "predictions.csv").write_text("")
    with pytest.raises(SystemExit):
        predict.main([str(trial), str(new), "--out", str(tmp_path / "predictions.csv")])
    with pytest.raises(SystemExit):
        predict.main([str(trial), str(new), "--out", str(tmp_path / "predictions.txt")])
    assert (tmp_path / "predictions.csv").read_text() == ""


def test_a_trial_on_other_data_is_refused(refused, tmp_path):
    config = commandline.compose([*TINY[1:], "dataset=adding", "dataset.length=5", "dataset.train_samples=4", "train.epochs=0"])
    [trial] = run_trials(config, datasets.load(config["dataset"]), tmp_path)
    assert "was trained on dataset=adding, expected dataset=files" in refused(trial.path, table(tmp_path / "new.csv", 3))


def test_an_evaluation_on_another_file_standardises_as_the_training(trained, tmp_path):
    """By the own statistics of the other file, its values would be those of the training, and its classes other numbers."""
    trial, data = trained()
    checkpoint = read_checkpoint(trial)
    text = table(tmp_path / "other.csv", 30).read_text().splitlines()
    shifted = [";".join([*cells[:3], str(float(cells[3].replace(",", ".")) + 500).replace(".", ","), cells[4]])
               for line in text[1:] if (cells := line.split(";"))[4] != "run"]  # fmt: skip
    (tmp_path / "other.csv").write_text("\n".join([text[0], *shifted]))
    section = checkpoint.config["dataset"] | {"path": str(tmp_path / "other.csv")}
    own, as_trained = datasets.load(section), datasets.load(section, checkpoint.preparation)
    assert own.spec.output_size == 2
    assert as_trained.spec == data.spec.__class__(
        **{**vars(data.spec), "name": "files other", "max_length": own.spec.max_length}
    )
    assert set(as_trained.batch("train", torch.arange(9)).targets.tolist()) == {1, 2}
    rows = as_trained.batch("train", torch.arange(as_trained.sizes["train"])).inputs
    assert rows[..., 1].max() > 10
    assert own.batch("train", torch.arange(own.sizes["train"])).inputs[..., 1].max() < 3
    runs = [line for line in text[1:] if line.endswith(";run")]
    (tmp_path / "other.csv").write_text("\n".join([text[0], *runs]))
    assert set(datasets.load(section, checkpoint.preparation).batch("test", torch.arange(2)).targets.tolist()) == {0}
    again = datasets.load(checkpoint.config["dataset"], checkpoint.preparation)
    assert again.describe() == data.describe()
    assert torch.equal(again.batch("test", torch.arange(3)).inputs, data.batch("test", torch.arange(3)).inputs)
    (tmp_path / "other.csv").write_text("\n".join([text[0], *(line.replace(";run", ";fly") for line in text[1:])]))
    with pytest.raises(UserError, match="got the label 'fly', expected a class of the training"):
        datasets.load(section, checkpoint.preparation)
    with pytest.raises(UserError, match=r"dataset\.standardize: got False, expected True as in the training"):
        datasets.load(checkpoint.config["dataset"] | {"standardize": False}, checkpoint.preparation)
