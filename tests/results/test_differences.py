"""Differences over shared seeds: against scipy, with seeds that are not shared, and the sentence for each case."""

import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from seqmem.errors import UserError
from seqmem.results.differences import SeedDifferences, check_comparable
from seqmem.results.intervals import mean_interval
from seqmem.results.verdicts import SENTENCES, case, over_seeds
from tests.results.synthetic import configuration, rows_of, write_run


def pair(folder, first, second, metric="accuracy", best="max"):
    """The rows legs and gru of trials with these test results by seed; None for a failed trial."""
    for model, results in (("legs", first), ("gru", second)):
        for seed, test in results.items():
            config, failed = configuration(model, seed=seed), {"status": "failed", "reason": "no"}
            run = folder / model / f"seed_{seed}"
            write_run(run, config, test or 0.5, metric, best, epochs=1, **(failed if test is None else {}))
    rows = {row.model: row for row in rows_of(folder)}
    return SeedDifferences(rows["legs"], rows["gru"])


def by_seed(values):
    return dict(enumerate(values))


@pytest.mark.parametrize("n", [3, 5, 10])
def test_interval_and_p_value_are_those_of_scipy(tmp_path, n):
    first, second = np.random.default_rng(n).normal(0.7, 0.1, (2, n)).tolist()
    found = pair(tmp_path, by_seed(first), by_seed(second))
    expected = stats.ttest_rel(first, second)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.mean == pytest.approx(np.mean(first) - np.mean(second))


def test_95_of_100_intervals_cover_the_expected_difference():
    """Of five seeds each, whose results are correlated in pairs: 2,000 draws."""
    rng = np.random.default_rng(24)
    shared = rng.normal(0, 0.1, (2000, 5))
    differences = (0.8 + shared + rng.normal(0, 0.02, (2000, 5))) - (0.7 + shared + rng.normal(0, 0.04, (2000, 5)))
    covered = [low <= 0.1 <= high for low, high in map(mean_interval, differences.tolist())]
    assert 0.93 <= np.mean(covered) <= 0.97


def test_only_shared_seeds_with_a_result_are_compared_and_others_are_named(tmp_path):
    found = pair(tmp_path, {0: 0.7, 1: 0.8, 2: None, 4: 0.9}, {0: 0.5, 2: 0.6, 3: 0.6, 4: 0.6, 5: None})
    assert found.seeds == [0, 4]
    assert found.differences == pytest.approx([0.2, 0.3])
    assert found.left_out == (
        "second seed 1 not trained, first seed 2 failed, first seed 3 not trained, first seed 5 not trained, "
        "second seed 5 failed"
    )


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({0: 0.7}, {1: 0.6}, "none"),
        ({0: 0.7}, {0: 0.6}, "one"),
        ({0: 0.7, 1: 0.8}, {0: 0.6, 1: 0.6}, "two"),
        ({0: 0.7, 1: 0.8, 2: 0.9}, {0: 0.7, 1: 0.8, 2: 0.9}, "tied"),
        ({0: 0.7, 1: 0.8, 2: 0.9}, {0: 0.6, 1: 0.7, 2: 0.8}, "constant"),
        ({0: 0.71, 1: 0.8, 2: 0.9}, {0: 0.6, 1: 0.7, 2: 0.8}, "excludes"),
        ({0: 0.9, 1: 0.8, 2: 0.7}, {0: 0.6, 1: 0.7, 2: 0.8}, "includes"),
        ({0: math.nan, 1: 0.8, 2: 0.7}, {0: 0.6, 1: 0.7, 2: 0.8}, "not_finite"),
    ],
)
def test_each_case_has_its_sentence(tmp_path, first, second, expected):
    found = pair(tmp_path, first, second)
    assert case(found) == expected
    assert not {"{", "}"} & set(over_seeds(found))
    has_interval = expected in ("excludes", "includes", "constant", "tied")
    assert math.isnan(found.interval[0]) != has_interval
    assert math.isnan(found.p_value) == (expected not in ("excludes", "includes"))


@pytest.mark.parametrize("scale", [1e-14, 1.0, 1e14])
def test_the_case_does_not_depend_on_the_scale_of_the_metric(tmp_path, scale):
    values = {
        "excludes": ([3, 4, 5], [9, 9.5, 9.9]),
        "constant": ([0.7, 0.8, 0.9], [0.6, 0.7, 0.8]),
        "tied": ([0.1, 0.2, 0.3], [0.2, 0.3, 0.1]),
    }
    for expected, rows in values.items():
        found = pair(tmp_path / expected, *(by_seed([value * scale for value in row]) for row in rows), "mse", "min")
        assert case(found) == expected
        assert math.isnan(found.p_value) == (expected == "constant")


def test_a_case_that_only_the_page_has():
    assert SENTENCES.keys() - {"none", "one", "two", "tied", "constant", "excludes", "includes", "not_finite"} == {"different"}


def test_a_sentence_says_what_the_numbers_allow_to_say(tmp_path):
    found = pair(tmp_path, by_seed([0.71, 0.80, 0.90]), by_seed([0.60, 0.70, 0.80]))
    assert over_seeds(found) == (
        "On digits, legs has the higher test accuracy by 0.1033 on average over 3 shared seeds (95 % interval 0.0890 to "
        "0.1177): the numbers allow to say that it is better than gru with these settings on these data, and nothing about "
        "others."
    )


def test_of_an_error_the_lower_one_is_better(tmp_path):
    found = pair(tmp_path, by_seed([0.71, 0.80, 0.90]), by_seed([0.60, 0.70, 0.80]), "mse", "min")
    assert over_seeds(found).startswith("On digits, gru has the lower test mse by 0.1033 on average over 3 shared seeds (95 % ")
    assert "(95 % interval 0.0890 to 0.1177)" in over_seeds(found)


def test_rows_of_different_data_are_refused(tmp_path):
    """Whichever row has unknown data. A report gives different data different names, which are made equal here."""
    for model, data in (("legs", "aaa"), ("gru", "bbb"), ("rnn", None)):
        write_run(tmp_path / model / "seed_0", configuration(model), data=data)
    rows = {row.model: replace(row, dataset="digits") for row in rows_of(tmp_path)}
    for models in permutations(rows):
        with pytest.raises(UserError, match=r"legs and gru on digits: got checksum|gru and legs on digits: got checksum"):
            check_comparable([rows[model] for model in models])
    check_comparable([rows["rnn"], rows["gru"]])


def test_rows_of_different_metrics_are_refused(tmp_path):
    for model, metric in (("legs", "accuracy"), ("gru", "mse")):
        write_run(tmp_path / model, configuration(model), metric=metric)
    with pytest.raises(UserError, match="got metric"):
        check_comparable(rows_of(tmp_path))


def test_a_row_without_a_result_has_no_metric_to_refuse(tmp_path):
    write_run(tmp_path / "legs", configuration("legs"), metric="mse")
    write_run(tmp_path / "gru", configuration("gru"), status="failed", reason="no", data="bbb")
    check_comparable(rows_of(tmp_path))
