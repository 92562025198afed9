"""Results by length in a report: tables, CSV, picture and page, from the evaluations that trials have."""

import csv
import math
import re
from statistics import fmean, stdev

import pytest

from seqmem.cli import report
from seqmem.results.by_length import training_lengths
from seqmem.results.length_rows import length_rows
from seqmem.results.plots import LengthAxis, LengthLine, plot_length_rows, plot_lengths
from tests.results.lengths import COPYING, evaluated, evaluation, trial
from tests.results.synthetic import configuration, rows_of, write_run, written


def test_a_row_has_the_mean_and_the_interval_of_its_trials_at_each_length(tmp_path, capsys):
    values = evaluated(tmp_path)
    files = written(tmp_path)
    assert {"by_length.csv", "by_length.md", "by_length.tex", "by_length.png"} <= set(files)
    lines = list(csv.DictReader(files["by_length.csv"].decode().splitlines()))
    assert [(line["model"], line["length"], line["n"]) for line in lines] == [
        ("gru", "50", "3"),
        ("gru", "200", "2"),
        ("gru", "4000", "3"),
        ("lstm", "200", "1"),
    ]
    for line, each in zip(lines, values.values(), strict=False):
        assert float(line["mean"]) == pytest.approx(fmean(each))
        assert float(line["std"]) == pytest.approx(stdev(each))
    half = 4.302652729749464 * 0.1 / math.sqrt(3)  # of Student's t with two degrees of freedom
    assert [float(lines[0][key]) for key in ("low", "high")] == pytest.approx([0.9 - half, 0.9 + half])
    assert (lines[1]["low"], lines[3]["std"]) == ("", "")
    [head, gru, lstm] = [
        line for line in files["by_length.md"].decode().splitlines() if line.startswith("|") and "--" not in line
    ]
    assert [cell.strip() for cell in head.split("|")[1:-1]] == ["model", "n", "50", "200", "4000"]
    assert [cell.strip() for cell in gru.split("|")[1:-1]] == [
        "gru",
        "3",
        f"0.9000 +/- 0.1000 ({0.9 - half:.4f} to {0.9 + half:.4f})",
        "0.5500 +/- 0.0707, n=2",
        "0.1000 +/- 0.0000 (0.1000 to 0.1000)",
    ]
    assert [cell.strip() for cell in lstm.split("|")[1:-1]] == ["lstm", "1", "-", "0.2500", "-"]
    assert rb"0.9000 $\pm$ 0.1000" in files["by_length.tex"]
    shown = " ".join(capsys.readouterr().out.split())
    assert "mean test accuracy on copying by length" in shown
    assert re.search(r"gru\W+3\W+0\.9000\W+0\.5500, n=2\W+0\.1000", shown)
    page = files["report.html"].decode()
    section = page[page.index('<section id="lengths">') :]
    section = section[: section.index("</section>")]
    assert re.findall(r'<a href="#row-(\d)">(\w+)</a>', section) == [("0", "gru"), ("1", "lstm")]
    assert "0.5500 &plusmn; 0.0707, n=2" in section
    assert 'xlink:href="#row-1"' in section  # the line of lstm
    assert '<a href="#lengths">' in page


def test_trials_that_did_not_finish_are_in_the_tables_by_length(tmp_path, capsys):
    evaluated(tmp_path)
    folder = tmp_path / "lstm_"
    config = configuration("lstm", **COPYING)
    for seed, status in ((1, "failed"), (2, "failed"), (3, "interrupted")):
        write_run(folder / f"seed_{seed}", config | {"seed": seed}, status=status, reason="no")
    files = written(tmp_path)
    tables = files["by_length.md"].decode()
    assert re.search(r"\| model +\| +n \| not finished +\| +50 \|", tables)
    assert re.search(r"\| gru +\| 3 \| - +\| 0\.9", tables)
    assert re.search(r"\| lstm +\| 1 \| 2 failed, 1 interrupted +\| +- \| +0\.2500 \|", tables)
    page = files["report.html"].decode()
    section = page[page.index('<section id="lengths">') :]
    line = section[section.index(">lstm</a>") :].partition("</tr>")[0]
    assert re.findall(r"<td.*</td>", line) == [
        "<td>1</td>",
        '<td class="word">2 failed, 1 interrupted</td>',
        "<td>-</td>",
        "<td>0.2500</td>",
        "<td>-</td>",
    ]
    shown = capsys.readouterr().out.partition("by length")[2]
    assert re.search(r"lstm\W+1\W+2 failed, 1 interrupted\W+0\.2500", shown)
    lines = list(csv.DictReader(files["by_length.csv"].decode().splitlines()))
    assert [line["unfinished"] for line in lines] == ["0", "0", "0", "3"]


def test_a_result_that_is_not_finite_is_not_a_missing_one(tmp_path, capsys):
    for seed, accuracy in enumerate((0.5, math.nan)):
        evaluation(trial(tmp_path, seed=seed), 200, accuracy)
    assert "| nan (1 of 2 not finite) |" in written(tmp_path)["by_length.md"].decode()
    assert "(1 of 2 not" in capsys.readouterr().out.partition("by length")[2]


def test_lengths_are_chosen(tmp_path, capsys):
    evaluated(tmp_path)
    lines = list(csv.DictReader(written(tmp_path, "--lengths=4000,50")["by_length.csv"].decode().splitlines()))
    assert [(line["model"], line["length"]) for line in lines] == [("gru", "50"), ("gru", "4000")]
    for arguments, message in (
        (["--lengths", "60"], "--lengths: got 60, expected lengths of seqmem evaluate TRIAL lengths=A,B,..., 50, 200, 4000; "
         "did you mean 50?"),
        (["--lengths", "many"], "argument --lengths: got many, expected whole numbers separated by commas"),
    ):  # fmt: skip
        with pytest.raises(SystemExit):
            report.main([str(tmp_path), *arguments])
        assert message in capsys.readouterr().err
    trial(tmp_path / "none")
    assert not [name for name in written(tmp_path / "none") if name.startswith("by_length")]
    with pytest.raises(SystemExit):
        report.main([str(tmp_path / "none"), "--lengths=50"])
    assert "got 50, expected lengths of seqmem evaluate TRIAL lengths=A,B,..., which no trial has" in capsys.readouterr().err


def test_evaluations_of_other_weights_or_data_do_not_count(tmp_path):
    path = trial(tmp_path)
    evaluation(path, 50, 0.1)
    evaluation(path, 50, 0.7, number=1)  # newer
    evaluation(path, 60, 0.2, weights=b"others")
    evaluation(path, 70, 0.3, changed={"dataset.length": [100, 70], "dataset.seed": [0, 1]})
    evaluation(path, 80, 0.3, metric="loss")
    [row] = length_rows(rows_of(tmp_path))
    assert row.values == {50: [0.7]}
    assert row.trained == (50, 100)
    (path / "checkpoints" / "best.ckpt").unlink()
    [row] = length_rows(rows_of(tmp_path))  # weights of the epoch of the result
    assert sorted(row.values) == [50, 60]


def test_evaluations_of_a_row_are_on_the_same_number_of_sequences(tmp_path):
    for seed in range(3):
        path = trial(tmp_path, seed=seed)
        evaluation(path, 128, 0.9 + 0.01 * seed, sequences=512)
    evaluation(tmp_path / "gru_" / "seed_0", 128, 0.1, number=1, sequences=10)  # newer, and of fewer sequences
    evaluation(tmp_path / "gru_" / "seed_1", 128, 0.8, number=1, sequences=512)
    evaluation(tmp_path / "gru_" / "seed_1", 64, 0.7, sequences=512)
    evaluation(tmp_path / "gru_" / "seed_2", 64, 0.2, number=1, sequences=10)  # a tie: the larger number counts
    [row] = length_rows(rows_of(tmp_path))
    assert row.values == {64: [0.7], 128: [0.9, 0.8, 0.92]}


@pytest.mark.parametrize(
    "changes",
    [
        {"by_length": None},
        {"by_length": {"length": "50", "steps": 1, "sequences": 1, "keys": []}},
        {"by_length": {"length": 50, "steps": 1, "sequences": 0, "keys": []}},
        {"by_length": {"length": 50, "steps": 1, "sequences": 1}},
        {"result": None},
        {"result": {"test/accuracy": "x"}},
        {"result": {"test/loss": 1.0}},
        {"changed": ["x"]},
        {"changed": {"dataset.seed": 3}},
        {"metric": ["accuracy"]},
    ],
)
def test_damaged_evaluations_do_not_count(changes, tmp_path):
    path = trial(tmp_path)
    evaluation(path, 50, 0.9, **changes)
    for number, content in enumerate(("", "[1]", "{", "null", "\0")):
        (path / "evaluations" / f"{number}_length_1.json").write_text(content)
    assert length_rows(rows_of(tmp_path)) == []
    evaluation(path, 60, 0.9)
    assert [list(row.values) for row in length_rows(rows_of(tmp_path))] == [[60]]


@pytest.mark.parametrize(
    ("dataset", "lengths"),
    [
        ({"length": 40}, (40, 40)),
        ({"length": 40, "min_length": 1}, (1, 40)),
        ({"length": 40, "min_length": None, "mixture": None}, (40, 40)),
        ({"length": 64, "mixture": [[128, 8], [32, 4]]}, (32, 128)),
        ({"length": 64, "mixture": 0.5}, (64, 64)),  # of another meaning, in a data set of one's own
        ({"length": 64, "mixture": [["a", 1], []]}, (64, 64)),
        ({"problem": "Heartbeat"}, None),
    ],
)
def test_the_lengths_of_the_training(dataset, lengths):
    assert training_lengths({"dataset": {"name": "x", **dataset}}) == lengths


def test_the_picture_marks_training_lengths_on_a_logarithmic_axis(tmp_path):
    evaluated(tmp_path)
    figure = plot_length_rows(length_rows(rows_of(tmp_path)))
    [axis] = figure.axes
    assert axis.get_xscale() == "log"
    gru, lstm, mark = axis.get_lines()
    assert gru.get_xdata().tolist() == [50, 200, 4000]
    assert gru.get_ydata().tolist() == pytest.approx([0.9, 0.55, 0.1])
    assert (lstm.get_xdata().tolist(), set(mark.get_xdata())) == ([200], {100})
    texts = [text.get_text() for text in axis.get_legend().get_texts()]
    assert texts == ["gru (n=3)", "lstm (n=1)", "training: 50 to 100"]
    assert axis.get_ylabel() == "test accuracy"
    assert plot_length_rows([]) is None


def test_lengths_within_a_factor_of_ten_are_on_a_linear_axis():
    points = [(length, 0.5, 0.5, 0.5) for length in range(10, 101, 5)]
    [axis] = plot_lengths([LengthAxis("made", "accuracy", [LengthLine("gru", points)])]).axes
    assert axis.get_xscale() == "linear"
    [axis] = plot_lengths([LengthAxis("made", "accuracy", [LengthLine("gru", [*points, (101, 0, 0, 0)])], [(7, 7)])]).axes
    assert axis.get_xscale() == "log"
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["gru", "training: 7"]
