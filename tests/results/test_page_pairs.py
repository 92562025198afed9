"""Two rows picked in a report's page: the numbers that it embeds, and what its script shows of them, run by node."""

import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest

import seqmem.results
from seqmem.results import page_pairs
from seqmem.results.differences import SeedDifferences
from seqmem.results.table import number
from seqmem.results.verdicts import over_seeds
from tests.results.synthetic import configuration, rows_of, write_run, write_trials, written

pytestmark = pytest.mark.usefixtures("tables_alone")

SCRIPT = Path(seqmem.results.__file__).with_name("page_parts") / "compare.js"
_node = shutil.which("node")


def embedded(text):
    """The JSON of a page."""
    [found] = re.findall(r'<script type="application/json" id="pairs">(.*?)</script>', text, re.DOTALL)
    return json.loads(found)


def shown_by_the_script(found, folder):
    """What the script shows of each pair of rows, in both orders, for the JSON of a page."""
    path = folder / "pairs.json"
    path.write_text(json.dumps(found))
    command = [_node, str(Path(__file__).with_name("page_of_node.js")), str(SCRIPT), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def runs(tmp_path):
    """Five rows on digits that give different sentences, two of an error on waves, and a lonely one."""
    folder = write_trials(tmp_path, [0.9, 0.85, 0.95], model="legs")
    write_run(folder / "seed_3", configuration("legs", seed=3), status="failed", reason="no")
    write_trials(tmp_path, [0.7, 0.75, 0.72, 0.71], model="gru")
    write_trials(tmp_path, [0.9, 0.9, 0.8], model="rnn")
    write_trials(tmp_path, [0.7, 0.8], model="lmu")
    write_run(tmp_path / "lstm", configuration("lstm"), math.nan)
    for model, tests in (("legs", [2e-4, 3e-4, 3.5e-4]), ("gru", [12345.678, 20000, 30000])):
        for seed, test in enumerate(tests):
            write_run(tmp_path / "waves" / model / f"seed_{seed}", configuration(model, "waves", seed=seed), test, "mse", "min")
    write_trials(tmp_path, [0.5], model="legs", dataset="lonely")
    return tmp_path


def test_each_pair_of_one_data_set_is_embedded(runs):
    found = embedded(written(runs)["report.html"].decode())
    groups = rows_of(runs)
    assert len(found["rows"]) == 7
    assert len(found["pairs"]) == 5 * 4 // 2 + 1
    for key, (_, mean, low, high) in found["pairs"].items():
        first, second = (groups[int(k)] for k in key.split(","))
        pair = SeedDifferences(first, second)
        for value, expected in zip((mean, low, high), (pair.mean, *pair.interval), strict=True):
            assert value == (pytest.approx(expected) if math.isfinite(expected) else None)
    assert all(row["results"] == {} or row["dataset"] != "lonely" for row in found["rows"].values())


def test_without_two_rows_of_one_data_set_there_is_no_section(tmp_path):
    write_trials(tmp_path, [0.5], dataset="a")
    write_trials(tmp_path, [0.5], dataset="b")
    text = written(tmp_path)["report.html"].decode()
    assert "compare-first" not in text
    assert 'id="pairs"' not in text


def test_names_do_not_end_the_script(tmp_path):
    for lr in (0.1, 0.2):
        write_run(tmp_path / str(lr), configuration("</script><b>", lr=lr))
    text = written(tmp_path)["report.html"].decode()
    assert [row["model"] for row in embedded(text)["rows"].values()] == [f"</script><b> (train.lr={lr})" for lr in (0.1, 0.2)]


def test_a_data_set_of_many_rows_has_the_first_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(page_pairs, "MOST_ROWS", 3)
    for k in range(5):
        write_run(tmp_path / str(k), configuration(lr=0.1 * (k + 1)), started=f"2026-01-0{k + 1}")
    found = page_pairs.picked_pairs(rows_of(tmp_path))
    assert list(found["rows"]) == [0, 1, 2]
    assert list(found["pairs"]) == ["0,1", "0,2", "1,2"]


def test_rows_of_different_data_are_not_compared(tmp_path):
    for model, data in (("legs", "aaa"), ("gru", "bbb")):
        write_run(tmp_path / model, configuration(model), data=data)
    assert page_pairs.picked_pairs(rows_of(tmp_path)) is None
    rows = [replace(row, dataset="digits") for row in rows_of(tmp_path)]
    assert page_pairs.picked_pairs(rows)["pairs"] == {"0,1": ["different", None, None, None]}


@pytest.mark.skipif(_node is None, reason="there is no node")
def test_the_script_shows_the_sentences_of_the_command(runs, tmp_path):
    groups = rows_of(runs)
    shown = shown_by_the_script(page_pairs.picked_pairs(groups), tmp_path)
    numbers = [k for k, group in enumerate(groups) if group.dataset != "lonely"]
    expected = [(i, j) for i, j in permutations(numbers, 2) if groups[i].dataset == groups[j].dataset]
    assert [(int(each["first"]), int(each["second"])) for each in shown] == expected
    for (i, j), each in zip(expected, shown, strict=True):
        pair = SeedDifferences(groups[i], groups[j])
        assert each["sentence"].replace("e-4", "e-04") == over_seeds(pair)
        head, *seeds, mean, interval = each["rows"]
        assert head == ["seed", groups[i].model, groups[j].model, "difference"]
        assert mean[3].replace("e-4", "e-04") == number(pair.mean, "+")
        low, high = pair.interval
        assert interval[3] == ("-" if math.isnan(low) else f"{number(low, '+')} to {number(high, '+')}")
        differences = dict(zip(map(str, pair.seeds), pair.differences, strict=True))
        assert {seed: cells[2] for seed, *cells in seeds if seed in differences} == {
            seed: number(value, "+") for seed, value in differences.items()
        }
        assert {run.record["seed"] for group in (groups[i], groups[j]) for run in group.runs} == {int(row[0]) for row in seeds}


@pytest.mark.skipif(_node is None, reason="there is no node")
def test_failed_and_missing_seeds_are_shown(runs, tmp_path):
    found = page_pairs.picked_pairs(rows_of(runs))
    shown = shown_by_the_script(found, tmp_path)
    names = {str(k): row["name"] for k, row in found["rows"].items()}
    rows = {(names[each["first"]], names[each["second"]]): each["rows"] for each in shown}
    assert rows["legs on digits", "gru on digits"][4] == ["3", "failed", "0.7100", "-"]
    assert rows["legs on digits", "lmu on digits"][3] == ["2", "0.9500", "not trained", "-"]
