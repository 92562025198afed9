"""``python -m seqmem.report``: the files that it writes, their formats, and the order and choice of rows and columns."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
import time
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from seqmem.cli import report
from seqmem.results import formats, page, reading
from seqmem.results.curves import mean_curve, read_curves, thinned
from seqmem.results.labels import shortened
from seqmem.results.plots import plot_bars, plot_learning_curves
from seqmem.results.table import number
from tests.results.synthetic import COMMIT, configuration, rows_of, write_many, write_run, write_trials, written


def test_names_are_words_in_every_format(tmp_path):
    """Not formulas, and not elements of a page."""
    write_run(tmp_path / "a", configuration(path="/a/$y_$/b"), 0.5, started="2026-01-01")
    write_run(tmp_path / "b", configuration(path="<script>|"), 0.6, started="2026-01-02")
    files = written(tmp_path)
    assert b"<script>|" not in files["table.md"]
    assert rb"&lt;script>\|" in files["table.md"]
    assert b"/a/$y_$/b" in files["table.md"]


def test_formats_by_hand():
    columns = {"model": ["a_1 (50%)", "b|c"], "n": ["3", "-"], "test": ["0.5000 +/- 0.1000", "-0.2500"]}
    assert formats.text(columns) == (
        "model      n               test\n"
        "---------  -  -----------------\n"
        "a_1 (50%)  3  0.5000 +/- 0.1000\n"
        "b|c        -            -0.2500\n"
    )
    assert formats.markdown(columns) == (
        "| model | n | test |\n| --- | ---: | ---: |\n| a_1 (50%) | 3 | 0.5000 +/- 0.1000 |\n| b\\|c | - | -0.2500 |\n"
    )
    assert formats.latex(columns) == (
        "% \\usepackage{booktabs, adjustbox}\n"
        "\\begin{adjustbox}{max width=\\linewidth, max totalheight=0.95\\textheight}\n"
        "\\begin{tabular}{lrr}\n\\toprule\nmodel & n & test \\\\\n\\midrule\n"
        "a\\_1 (50\\%) & 3 & 0.5000 $\\pm$ 0.1000 \\\\\nb\\textbar{}c & -- & $-$0.2500 \\\\\n\\bottomrule\n\\end{tabular}\n"
        "\\end{adjustbox}\n"
    )
    assert formats.comma_separated({"a": ["1,5"], "b": ["x"]}) == 'a,b\n"1,5",x\n'


def test_every_special_symbol_of_latex_is_escaped():
    escaped = formats.latex({"model": [r"\{}~^<>|&%$#_"]})
    left = escaped.split("\\midrule\n")[1]
    for command in ("textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar"):
        left = left.replace(f"\\{command}{{}}", "")
    assert left.startswith(r"\{\}\&\%\$\#\_ \\")


def test_numbers_keep_their_digits():
    values = [0.0, 0.98341, 0.000123, 470000.0, float("nan")]
    assert list(map(number, values)) == ["0.0000", "0.9834", "1.23e-04", "470000", "-"]


def test_curves_by_hand():
    assert mean_curve([[(1, 0.2), (2, 0.4)], [(1, 0.4)], []]) == [(1, pytest.approx(0.3), 0.2, 0.4), (2, 0.4, 0.4, 0.4)]
    points = thinned(range(1001), 7)
    assert (len(points), points[0], points[-1]) == (7, 0, 1000)
    assert max(b - a for a, b in pairwise(points)) <= 168


class Page(HTMLParser):
    """Links, and addresses that a browser would fetch."""

    def __init__(self, text):
        super().__init__()
        self.links, self.ids, self.fetched = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for key, value in attributes:
            if key in ("href", "xlink:href") and tag == "a":
                self.links.append(value)
            elif key in ("src", "srcset", "data", "action") or (key == "href" and tag == "link"):
                self.fetched.append(value)
            elif key == "id":
                self.ids.append(value)


def test_the_page_is_one_file_whose_links_lead_somewhere(tmp_path):
    write_trials(tmp_path / "a b", [0.7, 0.8])
    write_trials(tmp_path, [0.6], lr=0.02)
    text = written(tmp_path)["report.html"].decode()
    page = Page(text)
    assert page.fetched == ["data:,"]
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttp|import\(", text)
    folders = {link for link in page.links if not link.startswith("#")}
    assert len(folders) == 3
    for link in folders:
        assert (tmp_path / "out" / link.replace("%20", " ") / "record.json").exists()
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert {"row-0", "row-1"} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    for shown in ("seed", "0.7000", "0.8000", COMMIT[:7], "1a2b3c4", "Xeon", "2026-11-22T04:36:58", "train.lr=0.02"):
        assert shown in text


def test_pictures_and_tables_of_all_formats_are_written(tmp_path):
    write_trials(tmp_path, [0.7123, 0.8123])
    files = written(tmp_path)
    assert sorted(files) == [
        "bars.png",
        "curves.png",
        "report.html",
        "table.csv",
        "table.md",
        "table.tex",
        "table.txt",
        "trials.csv",
    ]
    assert "0.7623 +/- 0.0707" in files["table.txt"].decode()
    assert "0.7623 +/- 0.0707" in files["table.md"].decode()
    assert "0.7623 $\\pm$ 0.0707" in files["table.tex"].decode()
    assert "0.7623 &plusmn; 0.0707" in files["report.html"].decode()
    assert files["bars.png"].startswith(b"\x89PNG")


def test_files_that_an_earlier_report_wrote_alone_are_removed(tmp_path):
    run = write_run(tmp_path / "a", configuration(), 0.7, epochs=2)
    published = tmp_path / "published.csv"
    published.write_text("task,model,metric,value\ndigits,legs,test accuracy,0.6\n")
    drawn = {"bars.png", "curves.png", "comparison.csv"}
    assert drawn <= set(written(tmp_path, "--against", published))
    others = ["by_length.csv", "by_length.png", "mine.png"]
    for name in others:
        (tmp_path / "out" / name).write_text("x")
    run.write_record({**run.read_record(), "status": "failed", "reason": "no"})
    found = set(written(tmp_path))
    assert not found & (drawn | {*others[:2]})
    assert "mine.png" in found
    (tmp_path / "out" / "comparison.csv").write_text("dataset,first,second\n")  # of seqmem compare --csv
    assert "comparison.csv" in written(tmp_path)
    (tmp_path / "out" / "report.html").unlink()
    (tmp_path / "out" / "bars.png").write_text("x")
    assert "bars.png" in written(tmp_path)  # of something else


@pytest.mark.parametrize("empty", ["no such folder", "a folder without records"])
def test_where_there_is_nothing_one_line_says_so(empty, tmp_path, capsys):
    folder = tmp_path / "runs"
    if empty != "no such folder":
        folder.mkdir()
    with pytest.raises(SystemExit) as ended:
        report.main([str(folder)])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(folder) in error


def headings(text):
    """Heading and rows of a table.txt as lists of words."""
    lines = [re.split(r"  +", line.strip()) for line in text.decode().splitlines() if line.strip()]
    return lines[0], lines[2:]


@pytest.mark.usefixtures("tables_alone")
def test_rows_are_sorted_and_columns_chosen(tmp_path, capsys):
    for model, tests in {"legs": [0.7, 0.8], "gru": [0.9], "rnn": [0.6]}.items():
        write_trials(tmp_path, tests, model=model)
    write_run(tmp_path / "failed", configuration("mgu"), status="failed", reason="no")
    write_run(tmp_path / "waves" / "a", configuration("lstm", dataset="waves"), 0.2, metric="mse", best="min")
    write_run(tmp_path / "waves" / "b", configuration("lmu", dataset="waves"), 0.1, metric="mse", best="min")
    for sort, first, last in (
        ("validation", ["gru", "legs", "rnn", "mgu"], ["lmu", "lstm"]),
        ("-test", ["rnn", "legs", "gru", "mgu"], ["lstm", "lmu"]),
        ("model", ["gru", "legs", "mgu", "rnn"], ["lmu", "lstm"]),
        ("-model", ["rnn", "mgu", "legs", "gru"], ["lstm", "lmu"]),
        ("n", ["legs", "gru", "rnn", "mgu"], ["lstm", "lmu"]),
    ):
        files = written(tmp_path, f"--sort={sort}", "--columns", "model,test,peak_memory_mib,n")
        names, rows = headings(files["table.txt"])
        assert names == ["model", "test", "peak_memory_mib", "n"]
        models = [row[0] for row in rows if row[0] in ("legs", "gru", "rnn", "mgu", "lstm", "lmu")]
        assert [model for model in models if model not in ("lstm", "lmu")] == first, sort
        assert [model for model in models if model in ("lstm", "lmu")] == last, sort
        assert next(csv.reader(files["table.csv"].decode().splitlines()))[0] == "dataset"
        shown = capsys.readouterr().out
        assert shown.index(first[0]) < shown.index(first[-1])
    for arguments, message in (
        (["--sort", "val"], "--sort: got val, expected a column; did you mean 'validation'?"),
        (["--sort", "tset"], "--sort: got tset, expected a column; did you mean 'test'?"),
        (["--columns", "model,parametres"], "--columns: got parametres, expected a column; did you mean 'parameters'?"),
    ):
        with pytest.raises(SystemExit):
            report.main([str(tmp_path), *arguments])
        assert message in capsys.readouterr().err


@pytest.mark.usefixtures("tables_alone")
def test_counts_are_whole_numbers(tmp_path):
    write_trials(tmp_path, [0.7, 0.8], model="legs")
    write_run(tmp_path / "failed", configuration("mgu"), status="failed", reason="no")
    _, rows = headings(written(tmp_path, "--columns=model,n,unfinished,timed,parameters,best_epoch")["table.txt"])
    assert rows[:2] == [["legs", "2", "0", "2", "13,514", "3.0000"], ["mgu", "0", "1", "-", "-", "-"]]


@pytest.mark.usefixtures("tables_alone")
def test_rows_without_a_machine_come_last_in_both_orders(tmp_path):
    machines = {"gru": {"processor": "B"}, "lstm": None, "rnn": {"processor": "A"}}
    for model, machine in machines.items():
        write_run(tmp_path / model, configuration(model), machine=machine)
    write_run(tmp_path / "failed", configuration("mgu"), status="failed", reason="no")
    for sort, first in (("machine", ["rnn", "gru"]), ("-machine", ["gru", "rnn"])):
        _, rows = headings(written(tmp_path, f"--sort={sort}", "--columns=model,n")["table.txt"])
        assert [row[0] for row in rows[:2]] == first
        assert {row[0] for row in rows[2:4]} == {"lstm", "mgu"}


@pytest.mark.usefixtures("tables_alone")
def test_published_columns_and_those_with_a_comma_are_chosen_and_sorted_by(tmp_path, capsys):
    for model, test in {"legs": 0.7, "gru": 0.9, "rnn": 0.8}.items():
        write_run(tmp_path / model, configuration(model), test, result_last={"test/accuracy": test - 0.1})
    published = tmp_path / "published.csv"
    published.write_text("task,model,metric,value\ndigits,legs,test accuracy,0.6\ndigits,gru,test accuracy,0.95\n")
    for sort, expected in (
        ("published test", ["gru", "legs", "rnn"]),
        ("test_difference", ["legs", "gru", "rnn"]),
        ("last_mean", ["gru", "rnn", "legs"]),
    ):
        files = written(tmp_path, f"--sort={sort}", "--against", published, "--columns=model,last_mean,test difference")
        names, rows = headings(files["table.txt"])
        assert names == ["model", "last_mean", "test difference"]
        assert [row[0] for row in rows[:3]] == expected, sort
    with pytest.raises(SystemExit):
        written(tmp_path, "--columns=model,lst_mean")
    assert "did you mean 'last_mean'?" in capsys.readouterr().err
    names, _ = headings(written(tmp_path, "--columns", "model,test, last epoch")["table.txt"])
    assert names == ["model", "test accuracy", "last epoch"]


def test_the_table_of_a_paper_has_short_labels(tmp_path):
    for k, size in enumerate((32, 64)):
        config = configuration(lr=0.1 + k)
        config["model"]["cell_args"]["hidden_size"] = size
        write_run(tmp_path / str(k), config, started=f"2026-01-0{k + 1}")
    files = written(tmp_path)
    assert b"legs (model.cell_args.hidden_size=32, train.lr=0.1)" in files["table.md"]
    [head, *rows] = [line for line in files["table.tex"].decode().splitlines() if line.endswith(r"\\")]
    assert head == r"data set & model & n & test accuracy & validation accuracy & parameters \\"
    assert [row.split(" & ")[1] for row in rows] == [
        rf"legs, hidden\_size={size}, lr={lr}" for size, lr in ((32, 0.1), (64, 1.1))
    ]


def test_short_labels_stay_different():
    assert shortened(
        ["legs (model.cell_args.dropout=0.1)", "tcn (model.dropout=0.1)", "lstm (code=1a2b3c4)", "f(x) (a.b=2)"]
    ) == [
        "legs, model.cell_args.dropout=0.1",
        "tcn, model.dropout=0.1",
        "lstm, code=1a2b3c4",
        "f(x), b=2",
    ]


def test_smoke_tests_are_marked_everywhere(tmp_path):
    write_run(tmp_path / "a" / "seed_0", configuration(), started="2026-01-01")
    smoke = [configuration(lr=lr) | {"smoke_test": True} for lr in (0.01, 0.02)]
    for k, config in enumerate(smoke):
        write_run(tmp_path / f"b{k}" / "seed_0", config, smoke_test=True, started=f"2026-01-0{k + 2}")
    groups = rows_of(tmp_path)
    models = ["legs", "legs (smoke test, train.lr=0.01)", "legs (smoke test, train.lr=0.02)"]
    assert [row.model for row in groups] == models
    files = written(tmp_path)
    for name in ("table.txt", "table.md", "table.csv", "trials.csv", "report.html"):
        assert "legs (smoke test, train.lr=0.02)" in files[name].decode(), name
    for name in ("table.txt", "table.md", "table.tex", "report.html"):
        assert "whose numbers are not results" in files[name].decode(), name
    curves = plot_learning_curves(groups, read_curves(groups)[0])
    assert [text.get_text() for text in curves.axes[0].get_legend().get_texts()] == [
        "legs (n=1)",
        "legs, smoke test, lr=0.01 (n=1)",
        "legs, smoke test, lr=0.02 (n=1)",
    ]
    assert plot_bars(groups[1:]).axes[0].get_title() == "digits, smoke test"
    write_run(tmp_path / "c" / "seed_0", configuration("gru"))
    assert "smoke test" not in written(tmp_path / "c")["report.html"].decode()


def test_many_records_take_seconds(tmp_path):
    """In CPU time, which does not depend on the load of the machine; 2,000 records are in the long tests."""
    write_many(tmp_path / "runs", 100)
    start = time.process_time()
    files = written(tmp_path)
    assert time.process_time() - start < 3
    assert len(files["trials.csv"].splitlines()) == 101


@pytest.mark.slow
def test_two_thousand_records_take_less_than_ten_seconds(tmp_path):
    write_many(tmp_path / "runs", 2000)
    before = os.times()
    command = [sys.executable, "-m", "seqmem.report", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    after = os.times()
    assert done.returncode == 0, done.stderr
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert spent < 10
    assert (tmp_path / "out" / "report.html").stat().st_size < 10_000_000
    assert "2000 trials" in done.stdout


def test_commands_of_the_page_can_be_pasted(tmp_path):
    write_run(tmp_path / "runs" / "seed_0", configuration())
    path = tmp_path / "runs" / "seed_0" / "record.json"
    command = ["train.py", "-m", 'output_dir="a b"', "train.lr=choice(0.1,0.2)"]
    path.write_text(json.dumps({**json.loads(path.read_text()), "command": command}))
    [line] = page._commands(reading.find_runs(tmp_path / "runs"))
    assert shlex.split(line) == ["python", *command]
