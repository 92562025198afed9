"""Mean ranks over data sets, Wilcoxon's test, groups without a difference, and their picture."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from seqmem.results.rank_picture import plot_ranks
from seqmem.results.ranks import Ranking, ranking
from tests.results.synthetic import configuration, rows_of, write_run


def ranked(scores):
    scores = np.asarray(scores, float)
    models, datasets = (tuple(f"{kind}{k}" for k in range(size)) for kind, size in zip("md", scores.T.shape, strict=True))
    return Ranking(models, datasets, scores)


def drawn(seed, datasets=12, models=6, spread=0.6):
    rng = np.random.default_rng(seed)
    return ranked(rng.normal(0, 1, (datasets, models)) + spread * np.arange(models))


def test_ranks_by_hand():
    """The best has rank 1, and two equal ones share the mean of theirs."""
    found = ranked([[0.9, 0.8, 0.8], [0.7, 0.9, 0.5], [0.9, 0.8, 0.1], [0.9, 0.8, 0.1], [0.9, 0.8, 0.1]])
    assert found.mean_ranks.tolist() == pytest.approx([6 / 5, 9.5 / 5, 14.5 / 5])
    chi_square = 12 * 5 / (3 * 4) * sum((rank - 2) ** 2 for rank in found.mean_ranks)
    ties = 1 - (2**3 - 2) / (5 * (3**3 - 3))
    assert found.friedman == pytest.approx(stats.chi2.sf(chi_square / ties, 2))


def test_pairs_are_those_of_scipy_with_holm():
    found = drawn(0)
    p_values = {(i, j): stats.wilcoxon(found.scores[:, i], found.scores[:, j]).pvalue for i, j in combinations(range(6), 2)}
    assert {pair: p for pair, (p, _) in found.pairs.items()} == pytest.approx(p_values)
    smallest = min(p_values, key=p_values.get)
    assert found.pairs[smallest][1] == pytest.approx(min(1, 15 * p_values[smallest]))
    assert all(holm >= p for p, holm in found.pairs.values())


def test_five_data_sets_with_equal_differences_have_the_exact_p_value():
    """Two of 32 signs, where the normal approximation gives 0.025."""
    assert ranked([[0.5, 0.25]] * 5).pairs[0, 1][0] == pytest.approx(2 / 32)
    assert ranked([[0.5, 0.5]] * 5).pairs[0, 1][0] == 1


def test_many_data_sets_of_which_some_are_tied_have_the_exact_p_value():
    """Those without a difference are left out, as by 13 or fewer data sets."""
    differences = np.random.default_rng(1).normal(0.4, 1, 20)
    differences[:3] = 0
    expected = stats.wilcoxon(differences[3:], method="exact").pvalue
    assert ranked(np.stack([differences, 0 * differences], 1)).pairs[0, 1][0] == pytest.approx(expected)


def test_means_that_differ_by_rounding_alone_are_tied():
    mean = (0.6 + 0.7 + 0.8) / 3
    assert mean != 0.7
    found = ranked([[mean, 0.7], [0.9, 0.8], [0.8, 0.7], [0.7, 0.6], [0.6, 0.5], [0.5, 0.4]])
    assert found.mean_ranks.tolist() == pytest.approx([6.5 / 6, 11.5 / 6])
    assert found.pairs[0, 1][0] == pytest.approx(2 / 32)  # five differences of 0.1


def test_the_smallest_p_value_is_reached_and_not_passed():
    found = ranked(np.random.default_rng(0).random((5, 3)) + np.array([2, 1, 0]))
    assert min(p for _, p in found.pairs.values()) == found.smallest_p_value == pytest.approx(3 * 2 / 32)


@pytest.mark.parametrize("seed", range(20))
def test_groups_are_the_largest_sets_without_a_difference(seed):
    """Naive: all sets of two models or more, of which no pair differs, that are in no larger one."""
    found = drawn(seed)
    sets = [
        set(chosen)
        for size in range(2, 7)
        for chosen in combinations(range(6), size)
        if not any(found.pairs[pair][1] < 0.05 for pair in combinations(chosen, 2))
    ]
    largest = [each for each in sets if not any(each < other for other in sets)]
    assert sorted(map(sorted, found.groups)) == sorted(map(sorted, largest))
    for group in found.groups:
        assert list(found.mean_ranks[list(group)]) == sorted(found.mean_ranks[list(group)])


def test_some_of_these_models_differ_and_some_do_not():
    """So that the tests of groups are not of one group alone."""
    counts = [len(drawn(seed).groups) for seed in range(20)]
    assert max(counts) > 1
    assert any(len(group) == 6 for seed in range(20) for group in drawn(seed, spread=0).groups)


def write_rows(folder, tests, metric="accuracy", best="max"):
    """A trial for each model of each data set; ``tests`` is data set -> model -> result."""
    for dataset, results in tests.items():
        for model, test in results.items():
            config = configuration(model, dataset)
            write_run(folder / dataset / model, config, test, metric, best, started=f"2026-01-{len(tests):02}")


def rows_by_name(folder):
    return {(row.dataset, row.model): row for row in rows_of(folder)}


def test_data_sets_count_where_every_row_has_a_result_of_one_metric(tmp_path):
    write_rows(tmp_path, {f"set{k}": {"legs": 0.9, "gru": 0.8 - 0.01 * k} for k in range(5)})
    write_rows(tmp_path, {"lonely": {"legs": 0.9}})
    write_rows(tmp_path, {"waves": {"legs": 0.9, "gru": 0.8}}, "mse", "min")
    write_run(tmp_path / "failing" / "gru", configuration("gru", "failing"), status="failed", reason="no")
    write_rows(tmp_path, {"failing": {"legs": 0.9}})
    found, note = ranking(["legs", "gru"], rows_by_name(tmp_path))
    assert sorted(found.datasets) == [f"set{k}" for k in range(5)]
    assert found.mean_ranks.tolist() == [1, 2]
    assert {"lonely", "waves", "failing"} == set(note.partition(", where")[0].removeprefix("not ranked: ").split(", "))


def test_the_smaller_value_is_the_better_one_of_an_error(tmp_path):
    write_rows(tmp_path, {f"set{k}": {"legs": 0.1, "gru": 0.2} for k in range(5)}, "mse", "min")
    found, note = ranking(["legs", "gru"], rows_by_name(tmp_path))
    assert found.mean_ranks.tolist() == [1, 2]
    assert note == ""


def test_four_data_sets_are_too_few(tmp_path):
    write_rows(tmp_path, {f"set{k}": {"legs": 0.9, "gru": 0.8} for k in range(4)})
    found, note = ranking(["legs", "gru"], rows_by_name(tmp_path))
    assert found is None
    assert note.startswith("no mean ranks: got 4 data sets of one metric with a result of every row (set")
    assert note.endswith("expected at least 5")


def test_the_picture_has_each_rank_and_each_group():
    found = drawn(1)
    axis = plot_ranks(found).axes[0]
    texts = [text.get_text() for text in axis.texts]
    for model, rank in zip(found.models, found.mean_ranks, strict=True):
        assert f"{model}  {rank:.2f}" in texts
    bars = [line for line in axis.lines if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in bars] == [list(found.mean_ranks[list(group)]) for group in found.groups]
    left, right = axis.get_xlim()
    assert all(left < text.get_position()[0] < right for text in axis.texts)


def test_names_of_the_picture_lie_inside_it():
    found = Ranking(
        ("legs (model.cell_args.hidden_size=64, train.lr=0.001)", "$x$", "gru"), tuple("abcde"), drawn(1, 5, 3).scores
    )
    figure = plot_ranks(found)
    figure.draw_without_rendering()
    width = figure.bbox.width
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        assert box.x0 >= 0, text.get_text()
        assert box.x1 <= width, text.get_text()
