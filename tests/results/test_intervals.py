"""95 % intervals of a mean: against scipy, by simulation, and in the table of every format."""

import csv
import math
import re

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from seqmem.results import show_table, summarize
from seqmem.results.intervals import FEWEST, mean_interval
from seqmem.results.selection import order
from tests.results.synthetic import configuration, rows_of, write_run, write_trials, written

pytestmark = pytest.mark.usefixtures("tables_alone")


@pytest.mark.parametrize("n", [3, 4, 10, 50])
def test_the_interval_is_that_of_scipy(n):
    values = np.random.default_rng(n).normal(0.8, 0.1, n)
    expected = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert mean_interval(values.tolist()) == pytest.approx(expected, rel=1e-12)
    assert mean_interval(values.tolist()) == pytest.approx(tuple(stats.ttest_1samp(values, 0).confidence_interval()), rel=1e-12)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_95_of_100_intervals_cover_the_expected_value(n):
    """2,000 draws: the standard error of the coverage is half a percent, four of which are the bound."""
    draws = np.random.default_rng(24).normal(0.7, 0.05, (2000, n)).tolist()
    covered = [low <= 0.7 <= high for low, high in map(mean_interval, draws)]
    assert 0.93 <= np.mean(covered) <= 0.97


@pytest.mark.parametrize("values", [[], [0.5], [0.5, 0.6], [0.5, 0.6, math.nan], [0.5, 0.6, math.inf]])
def test_there_is_none_of_fewer_than_three_or_of_a_value_that_is_not_finite(values):
    assert all(map(math.isnan, mean_interval(values)))


def test_every_table_has_the_interval_beside_n_mean_and_deviation(tmp_path, capsys):
    write_trials(tmp_path, [0.7, 0.8, 0.9])
    write_trials(tmp_path, [0.5, 0.6], model="gru")
    low, high = stats.t.interval(0.95, 2, loc=0.8, scale=0.1 / math.sqrt(3))
    shown = f"{low:.4f} to {high:.4f}"
    files = written(tmp_path)
    for name in ("table.txt", "table.md", "table.tex", "report.html"):
        text = files[name].decode()
        assert shown in text, name
        assert len(re.findall(r"\d to \d", text)) == 1, name
        assert ("95 \\% interval" if name == "table.tex" else "95 % interval") in text
    assert shown in capsys.readouterr().out
    rows = {row["model"]: row for row in csv.DictReader(files["table.csv"].decode().splitlines())}
    legs, gru = rows["legs"], rows["gru"]
    assert [float(legs[key]) for key in ("n", "test_mean", "test_std", "test_low", "test_high")] == pytest.approx(
        [3, 0.8, 0.1, low, high]
    )
    assert gru["n"] == "2"
    assert gru["test_low"] == gru["val_high"] == ""
    assert legs["val_low"] < legs["val_mean"] < legs["val_high"]


def test_where_no_row_has_three_trials_there_is_no_column(tmp_path):
    write_trials(tmp_path, [0.7, 0.8])
    assert FEWEST == 3
    assert all(b"95 " not in content for name, content in written(tmp_path).items() if name.startswith("table."))


def test_negative_ends_have_a_minus_sign_in_latex(tmp_path):
    write_trials(tmp_path, [-0.7, -0.8, -0.9])
    assert rb"& $-$0.8000 $\pm$ 0.1000 & $-$1.0484 to $-$0.5516 &" in written(tmp_path)["table.tex"]


def test_failed_seeds_are_shown_beside_the_interval(tmp_path):
    folder = write_trials(tmp_path, [0.7, 0.8, 0.9])
    write_run(folder / "seed_3", configuration(seed=3), status="failed", reason="no")
    header, _, row = (line.split("|")[1:-1] for line in written(tmp_path)["table.md"].decode().splitlines()[:3])
    assert [name.strip() for name in header[2:6]] == ["n", "not finished", "test accuracy", "95 % interval"]
    assert row[3].strip() == "1 failed"


def test_rows_are_sorted_by_the_lower_end(tmp_path):
    write_trials(tmp_path, [0.7, 0.8, 0.9])
    write_trials(tmp_path, [0.78, 0.79, 0.80], model="gru")
    write_trials(tmp_path, [0.9], model="rnn")
    groups = rows_of(tmp_path)
    assert [groups[k].model for k in order(summarize(groups), groups, "95 % interval")] == ["gru", "legs", "rnn"]


@pytest.mark.parametrize(("width", "is_whole"), [(90, False), (140, True)])
def test_numbers_are_folded_after_words(tmp_path, width, is_whole):
    write_trials(tmp_path, [0.7, 0.8, 0.9], path="a folder of a long name")
    write_trials(tmp_path, [0.7, 0.8, 0.9], path="another folder of a long name")
    console = Console(width=width)
    with console.capture() as captured:
        show_table(summarize(rows_of(tmp_path)), console)
    assert ("0.8000 +/- 0.1000" in captured.get()) == is_whole
