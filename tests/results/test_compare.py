"""``seqmem compare``: its table, sentences, files and refusals."""

import csv
import math
import re

import numpy as np
import pytest
from scipy import stats

from seqmem.cli import compare
from seqmem.results.comparison import compare_rows, shown
from seqmem.results.table import p_value
from seqmem.results.verdicts import over_pairs
from tests import program
from tests.results.kept import classified
from tests.results.lengths import evaluation, trial
from tests.results.synthetic import configuration, rows_of, write_run, write_trials


def printed(capsys, *arguments):
    """What the command prints, with the blanks of its table as one."""
    compare.main(list(map(str, arguments)))
    return re.sub(r"[ \u2502]+", " ", capsys.readouterr().out)


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        compare.main(list(map(str, arguments)))
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.count("\n") == 1
    return error.removeprefix("error: ").strip()


def write_sets(folder, count, models=("legs", "gru"), seeds=3):
    """Rows on data sets set0, set1, ...: each model is 0.1 below the one before it."""
    rng = np.random.default_rng(0)
    for k in range(count):
        for place, model in enumerate(models):
            tests = 0.9 - 0.1 * place + 0.01 * rng.random(seeds)
            write_trials(folder, tests.tolist(), model=model, dataset=f"set{k}")


def test_two_rows_over_shared_seeds(tmp_path, capsys):
    first, second = [0.9, 0.85, 0.95], [0.7, 0.75, 0.72]
    write_trials(tmp_path, first, model="legs")
    write_trials(tmp_path, second, model="gru")
    write_trials(tmp_path, [0.1, 0.2], model="rnn")
    expected = stats.ttest_rel(first, second)
    low, high = expected.confidence_interval()
    text = printed(capsys, tmp_path, "--rows", "legs", "gru", "--csv", tmp_path / "c.csv")
    assert f"digits paired t 3 seeds 0.9000 0.7233 +0.1767 +{low:.4f} to +{high:.4f} {expected.pvalue:.4f}" in text
    assert f"by 0.1767 on average over 3 shared seeds (95 % interval {low:.4f} to {high:.4f})" in text
    assert "rnn" not in text
    assert "no mean ranks: got 1 data set of one metric with a result of every row (digits), expected at least 5" in text
    [line] = csv.DictReader((tmp_path / "c.csv").read_text().splitlines())
    assert (line["first"], line["second"], line["metric"], line["method"], line["n"]) == (
        "legs",
        "gru",
        "accuracy",
        "paired t",
        "3",
    )
    assert [float(line[key]) for key in ("difference", "low", "high", "p")] == pytest.approx(
        [np.mean(first) - np.mean(second), low, high, expected.pvalue]
    )


@pytest.mark.parametrize(("n", "said"), [(1, "one seed does not allow to say"), (2, "these are too few for an interval")])
def test_one_or_two_seeds_have_a_difference_and_no_interval(tmp_path, capsys, n, said):
    write_trials(tmp_path, [0.9, 0.8][:n], model="legs")
    write_trials(tmp_path, [0.7, 0.7, 0.7], model="gru")
    text = printed(capsys, tmp_path, "--rows", "legs", "gru")
    assert f"{n} seed" in text
    assert said in text
    assert "interval" not in text.partition("On digits")[0]
    assert "first seed 2 not trained" in text


def test_failed_seeds_are_shown(tmp_path, capsys):
    folder = write_trials(tmp_path, [0.9, 0.8, 0.9], model="legs")
    write_trials(tmp_path, [0.7, 0.7, 0.8, 0.7], model="gru")
    write_run(folder / "seed_3", configuration("legs", seed=3), status="failed", reason="no")
    assert "first seed 3 failed" in printed(capsys, tmp_path, "--rows", "legs", "gru")


def test_failed_seeds_of_ranked_rows_are_shown(tmp_path, capsys):
    write_sets(tmp_path, 8, ("legs", "gru"))
    write_sets(tmp_path, 8, ("rnn",), seeds=1)
    for k, folder in enumerate(sorted(tmp_path.glob("set*_rnn_*"))):
        for seed in (1, 2):
            config = configuration("rnn", f"set{k}", seed=seed)
            write_run(folder / f"seed_{seed}", config, status="interrupted" if (k, seed) == (4, 2) else "failed", reason="no")
    lines = printed(capsys, tmp_path).splitlines()
    assert (
        "rnn: 16 of 24 trials have no result: seeds 1, 2 failed on set0, set1, set2, set3, set5, set6 and 1 more; "
        + ("seed 1 failed, seed 2 interrupted on set4")
        in lines
    )
    assert not [line for line in lines if line.startswith(("legs: ", "gru: "))]
    write_trials(tmp_path, [0.5] * 12, model="gru", dataset="set9")
    write_trials(tmp_path, [0.5], model="legs", dataset="set9")
    write_trials(tmp_path, [0.5], model="rnn", dataset="set9")
    text = printed(capsys, tmp_path)
    assert "legs: 11 of 36 trials have no result: seeds 1, 2, 3, 4, 5, 6 and 5 more not trained on set9\n" in text


def test_order_of_the_rows_is_that_of_the_command(tmp_path, capsys):
    write_trials(tmp_path, [0.9, 0.85, 0.95], model="legs")
    write_trials(tmp_path, [0.7, 0.75, 0.72], model="gru")
    assert "0.7233 0.9000 -0.1767" in printed(capsys, tmp_path, "--rows", "gru", "legs")


def test_trained_models_are_compared_over_the_test_sequences(tmp_path, capsys):
    rng = np.random.default_rng(1)
    rights = {model: rng.random((2, 60)) < chance for model, chance in (("legs", 0.9), ("gru", 0.6))}
    for model, each in rights.items():
        for seed, right in enumerate(each):
            classified(tmp_path, model, right, seed)
    text = printed(capsys, tmp_path, "--rows", "legs", "gru", "--csv", tmp_path / "c.csv")
    lines = {(line["method"], line["of"]): line for line in csv.DictReader((tmp_path / "c.csv").read_text().splitlines())}
    assert list(lines) == [("paired t", ""), ("McNemar", "seed 0"), ("McNemar", "seed 1"), ("bootstrap", "2 seeds")]
    for seed, (first, second) in enumerate(zip(rights["legs"], rights["gru"], strict=True)):
        only_first, only_second = (first & ~second).sum(), (second & ~first).sum()
        line = lines["McNemar", f"seed {seed}"]
        assert float(line["p"]) == pytest.approx(stats.binomtest(only_first, only_first + only_second).pvalue)
        assert float(line["difference"]) == pytest.approx((only_first - only_second) / 60)
        assert float(line["low"]) < float(line["difference"]) < float(line["high"])
        assert (line["n"], line["unit"]) == ("60", "sequence")
    differences = np.mean([a.astype(float) - b for a, b in zip(rights["legs"], rights["gru"], strict=True)], 0)
    level = 2 * stats.norm.cdf((60 / 59) ** 0.5 * stats.t.ppf(0.975, 59)) - 1
    expected = stats.bootstrap(
        (differences,), np.mean, confidence_level=level, method="percentile", random_state=np.random.default_rng(0)
    ).confidence_interval
    last = lines["bootstrap", "2 seeds"]
    assert [float(last["low"]), float(last["high"])] == pytest.approx(tuple(expected), abs=1e-9)
    assert (
        "For these 2 pairs of trained models, the numbers allow to say that legs is better than gru on test sequences" in text
    )


def test_one_pair_of_trained_models_is_judged_by_mcnemar(tmp_path, capsys):
    classified(tmp_path, "legs", [True] * 30)
    classified(tmp_path, "gru", [True] * 28 + [False] * 2)
    text = printed(capsys, tmp_path, "--rows", "legs", "gru")
    assert (
        "For these two trained models, the numbers do not allow to say which is better on test sequences of this kind" in text
    )
    assert "(McNemar's p = 0.5000)" in text


def test_without_predictions_a_line_says_how_to_keep_them(tmp_path, capsys):
    classified(tmp_path, "legs", [True] * 30)
    trial = write_run(tmp_path / "gru" / "seed_0", configuration("gru"))
    text = printed(capsys, tmp_path, "--rows", "legs", "gru")
    assert (
        "no test over sequences for seed 0 on digits: gru: no predictions of the test split are kept; "
        f"seqmem evaluate {trial.path.parent} predictions=predictions.npz keeps them"
    ) in text


def test_the_predictions_of_all_seeds_are_kept_by_one_command_a_row(tmp_path, capsys):
    for model in ("legs", "gru"):
        for seed in (0, 1):
            write_run(tmp_path / model / f"seed_{seed}", configuration(model, seed=seed))
    text = printed(capsys, tmp_path, "--rows", "legs", "gru")
    commands = [f"seqmem evaluate {tmp_path / model} predictions=predictions.npz" for model in ("legs", "gru")]
    assert f"no predictions of the test split are kept; {' and '.join(commands)} keep them\n" in text


def test_a_tiny_p_value_is_below_the_smallest_that_is_shown(tmp_path, capsys):
    classified(tmp_path, "legs", [True] * 3000)
    classified(tmp_path, "gru", [False] * 3000)  # exactly 2 ** -2999, which is 0 in double precision
    text = printed(capsys, tmp_path, "--rows", "legs", "gru")
    assert "(McNemar's p < 0.0001)" in text
    assert re.search(r"McNemar, seed 0 .* < 0\.0001 ", text)
    assert [p_value(p) for p in (1.0, 0.0005, 1e-4, 9e-5, 0.0, math.nan)] == [
        "1.0000",
        "0.0005",
        "0.0001",
        *["< 0.0001"] * 2,
        "-",
    ]


def test_one_line_names_all_data_sets_without_predictions(tmp_path, capsys):
    write_sets(tmp_path, 3)
    text = printed(capsys, tmp_path, "--rows", "legs", "gru")
    [line] = [line for line in text.splitlines() if line.startswith("no test over sequences")]
    assert line.startswith("no test over sequences for seed 0 on set0: legs: no predictions of the test split are kept; ")
    assert line.endswith(" keep them; also incomplete: set1, set2")


@pytest.mark.parametrize("ignored", [0, 18])
def test_few_test_sequences_are_not_resampled(tmp_path, capsys, ignored):
    """Those without a target that counts are not sequences to resample."""
    classified(tmp_path, "legs", [True] * (19 + ignored), ignored=ignored)
    classified(tmp_path, "gru", [False] * (19 + ignored), ignored=ignored)
    text = printed(capsys, tmp_path, "--rows", "legs", "gru")
    assert "no test over sequences on digits: got 19 test sequences, expected at least 20" in text
    assert "McNemar" not in text


@pytest.mark.parametrize(
    ("pairs", "start"), [(1, "By one paired t test, "), (3, "After Holm's correction for 3 paired t tests, ")]
)
def test_one_pair_has_no_correction(pairs, start):
    assert over_pairs([], pairs).startswith(f"{start}no pair differs: ")
    assert over_pairs(["a better than b on x"] * pairs, pairs).startswith(f"{start}the numbers allow to say: a better than b")


def test_rows_are_compared_at_a_length(tmp_path, capsys):
    values = {"gru": [0.9, 0.8, 0.7], "lstm": [0.6, 0.4, 0.2]}
    for model, at in values.items():
        for seed, value in enumerate(at):
            evaluation(trial(tmp_path, model, seed), 256, value)
    evaluation(trial(tmp_path, "gru", 3), 200, 0.1)
    evaluation(trial(tmp_path, "lstm", 3), 256, 0.1)
    text = printed(capsys, tmp_path, "--rows", "gru", "lstm", "--length", "256", "--csv", tmp_path / "t.csv")
    assert "copying at 256" in text
    assert "first seed 3 not evaluated" in text
    assert "no test over sequences" not in text
    [line] = csv.DictReader((tmp_path / "t.csv").read_text().splitlines())
    expected = stats.ttest_rel(*values.values())
    assert (line["dataset"], line["n"]) == ("copying at 256", "3")
    assert float(line["first_mean"]) == pytest.approx(0.8)
    assert float(line["p"]) == pytest.approx(expected.pvalue)
    assert [float(line["low"]), float(line["high"])] == pytest.approx(list(expected.confidence_interval()))


def test_a_length_of_no_trial_is_refused(tmp_path, capsys):
    evaluation(trial(tmp_path, "gru"), 200, 0.1)
    trial(tmp_path, "lstm")
    for length, known in ((256, "known lengths: 200"), (200, "known lengths: none")):
        line = refused(capsys, tmp_path, "--rows", "gru", "lstm", "--length", length)
        assert line.startswith(f"--length: got {length}, at which no trial of ")
        assert line.endswith(known)


@pytest.mark.parametrize("model", ["gru", "lstm"])
def test_rows_at_a_length_on_different_numbers_of_sequences_are_refused(model, tmp_path, capsys):
    for each in ("gru", "lstm"):
        for seed in range(2):
            evaluation(trial(tmp_path, each, seed), 256, 0.5, sequences=10 if each == model else 512)
    [first, second] = [10 if each == model else 512 for each in ("gru", "lstm")]
    assert refused(capsys, tmp_path, "--rows", "gru", "lstm", "--length", 256) == (
        f"--length 256: got {first} test sequences of copying for gru and {second} for lstm, expected equal numbers; evaluate "
        f"again: seqmem evaluate {tmp_path / f'{model}_'} lengths=256 dataset.test_samples=512"
    )


def test_rows_at_a_length_on_different_sequences_are_refused(tmp_path, capsys):
    reads = {"gru": {"inputs": "1" * 64, "targets": "2" * 64}, "lstm": {"inputs": "1" * 64, "targets": "3" * 64}}
    for seed, model in ((0, "gru"), (1, "gru"), (1, "lstm"), (2, "lstm")):
        evaluation(trial(tmp_path, model, seed), 256, 0.5, read=reads[model])
    assert refused(capsys, tmp_path, "--rows", "gru", "lstm", "--length", 256) == (
        "--length 256: got 20 test sequences of copying for both gru and lstm, but for seed 1 with different checksums of "
        "targets (222222222222 and 333333333333), expected the same sequences; evaluate again: seqmem evaluate "
        f"{tmp_path} lengths=256 dataset.test_samples=20 again=true"
    )
    for unknown in (None, "x"):
        evaluation(tmp_path / "gru_" / "seed_1", 256, 0.5, number=1, read=unknown)
        assert "copying at 256" in printed(capsys, tmp_path, "--rows", "gru", "lstm", "--length", 256)


def test_predictions_for_other_test_sequences_are_refused(tmp_path, capsys):
    classified(tmp_path, "legs", [True] * 30)
    classified(tmp_path, "gru", [True] * 30, data={"name": "digits", "sha256": {"test": "2"}})
    line = refused(capsys, tmp_path, "--rows", "legs", "gru")
    assert line.endswith("got test sequences of different data, expected the same sequences in both")


def test_several_data_sets_are_corrected_and_too_few_to_rank(tmp_path, capsys):
    write_sets(tmp_path, 3)
    text = printed(capsys, tmp_path, "--rows", "legs", "gru", "--picture", tmp_path / "r.png")
    assert "(Holm)" in text
    assert "After Holm's correction for 3 paired t tests, the numbers allow to say: legs better than gru on set0" in text
    assert "no mean ranks: got 3 data sets" in text
    assert "no picture" in text
    assert not (tmp_path / "r.png").exists()


def test_five_data_sets_are_ranked_and_drawn(tmp_path, capsys):
    write_sets(tmp_path, 6, ("legs", "gru", "rnn"))
    text = printed(capsys, tmp_path, "--csv", tmp_path / "c.csv", "--picture", tmp_path / "r.png")
    lines = list(csv.DictReader((tmp_path / "c.csv").read_text().splitlines()))
    assert [line["method"] for line in lines] == ["paired t"] * 18 + ["Wilcoxon"] * 3
    ranks = {(line["first"], line["second"]): (float(line["first_mean"]), float(line["second_mean"])) for line in lines[18:]}
    assert set(ranks.values()) <= {(1, 2), (1, 3), (2, 3), (2, 1), (3, 1), (3, 2)}
    assert [float(line["p"]) for line in lines[18:]] == pytest.approx([2 / 64] * 3)
    assert [float(line["p_holm"]) for line in lines[18:]] == pytest.approx([3 * 2 / 64] * 3)
    assert "paired t " not in text.partition("After Holm")[0]
    assert "and none could with so few, since p is at least 0.0938" in text
    assert "legs 1.00, gru 2.00, rnn 3.00; Friedman's test of equal rows: p = " in text
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_eight_data_sets_allow_to_say_more(tmp_path):
    write_sets(tmp_path, 8, seeds=1)
    rows = {(row.dataset, row.model): row for row in rows_of(tmp_path)}
    found = compare_rows(["gru", "legs"], rows)
    assert found.sentences[-1] == "Over 8 data sets, Wilcoxon's test allows to say: legs better than gru."
    assert found.sentences[0] == (
        "No pair of rows has three shared seeds with results that vary: the numbers do not allow to say which is better."
    )
    assert "95 % interval" not in shown(found, ["gru", "legs"])


def test_rows_are_named_as_in_the_report(tmp_path, capsys):
    write_trials(tmp_path, [0.9, 0.8], lr=0.01)
    write_trials(tmp_path, [0.7, 0.6], lr=0.02)
    write_trials(tmp_path, [0.7, 0.6], model="gru", dataset="waves")
    names = ["legs (train.lr=0.01)", "legs, lr=0.02"]
    assert "+0.2000" in printed(capsys, tmp_path, "--rows", *names)
    assert "+0.2000" in printed(capsys, tmp_path, "--rows", f"{names[0]} on digits", names[1])
    assert "-0.2000" in printed(capsys, tmp_path, "--rows", names[1], names[0])
    for given, expected in (
        (["legs", names[1]], "got legs, expected a row of the report; did you mean 'legs (train.lr=0.01)' or 'legs (train.lr="),
        ([names[0], "grv"], "got grv, expected a row of the report; did you mean 'gru'?"),
        ([names[0]], f"got {names[0]}, expected at least two rows to compare"),
        ([names[0], f"{names[0]} on digits"], f"got {names[0]} twice, expected different rows"),
        ([f"{names[0]} on digits", "gru on waves"], "got rows on digits and on waves, expected rows on the same data set"),
        (
            [names[0], "gru"],
            f"got {names[0]}, gru, expected two rows on the same data set: {names[0]} is on digits; gru is on waves",
        ),
        ([names[0], "zzzz"], f"got zzzz, expected a row of the report; choose from: {names[0]}, legs (train.lr=0.02), gru"),
    ):
        assert refused(capsys, tmp_path, "--rows", *given).startswith(f"--rows: {expected}")


def test_a_model_is_named_without_its_settings_where_one_row_has_it(tmp_path, capsys):
    for model in ("legs", "gru"):
        write_run(tmp_path / model, configuration(model), smoke_test=True)
    assert "legs, smoke test minus gru, smoke test" in printed(capsys, tmp_path, "--rows", "legs", "gru")


def test_smoke_tests_are_meant_last(tmp_path, capsys):
    write_run(tmp_path / "0", configuration("legs") | {"smoke_test": True}, smoke_test=True)
    write_run(tmp_path / "1", configuration("legs"))
    assert "did you mean 'legs' or 'legs on digits' or 'legs (smoke test)'?" in refused(
        capsys, tmp_path, "--rows", "LEGS", "gru"
    )


def test_a_data_set_in_the_name_leaves_out_others(tmp_path, capsys):
    write_sets(tmp_path, 2)
    text = printed(capsys, tmp_path, "--rows", "legs on set1", "gru")
    assert "set1 paired t" in text
    assert "set0" not in text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--csv", "c.txt"), "--csv: got c.txt, expected a name that ends in .csv"),
        (("--csv", "none/c.csv"), "--csv: got none/c.csv, but there is no folder none"),
        (("--picture", "none/c.png"), "--picture: got none/c.png, but there is no folder none"),
        (("--picture", "c.mp3"), "--picture: got c.mp3, expected a name that ends in one of: ."),
    ],
)
def test_files_are_checked_first(tmp_path, capsys, monkeypatch, arguments, line):
    monkeypatch.chdir(tmp_path)
    assert refused(capsys, tmp_path, *arguments).startswith(line)


def test_a_data_set_with_one_of_the_rows_is_named_where_it_is_not_ranked(tmp_path, capsys):
    write_sets(tmp_path, 5, seeds=1)
    write_trials(tmp_path, [0.5], model="legs", dataset="lonely")
    text = printed(capsys, tmp_path, "--rows", "legs", "gru")
    assert "not ranked: lonely, where a row has no result or a metric other than accuracy" in text


def test_a_folder_without_trials(tmp_path, capsys):
    assert "got no run record below it" in refused(capsys, tmp_path)


def test_too_many_rows_to_rank(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("seqmem.results.comparison.MOST_RANKED", 2)
    write_sets(tmp_path, 5, ("legs", "gru", "rnn"), seeds=1)
    assert refused(capsys, tmp_path).startswith("--rows: got 3 rows, expected at most 2 to rank")


def test_smoke_tests_are_marked(tmp_path, capsys):
    for model in ("legs", "gru"):
        write_run(tmp_path / model, configuration(model), smoke_test=True)
    assert "whose numbers are not results" in " ".join(printed(capsys, tmp_path).split())


@pytest.mark.slow
def test_trials_as_they_are_trained_and_evaluated(tmp_path):
    """Training, evaluation and comparison as three commands, with predictions in both formats."""
    for model, suffix in (("rnn", "npz"), ("gru", "csv")):
        trained = ("dataset=digits", f"model={model}", "model.preset=tiny", "train.epochs=1", "runner.ntrials=1")
        assert program.run(["-m", "seqmem", "train", *trained], tmp_path).returncode == 0
        [trial] = tmp_path.glob(f"runs/digits_{model}_*/seed_0")
        kept = ["-m", "seqmem", "evaluate", str(trial), f"predictions={trial}/kept.{suffix}"]
        assert program.run(kept, tmp_path).returncode == 0
    done = program.run(["-m", "seqmem", "compare", "runs", "--rows", "rnn", "gru", "--csv", "c.csv"], tmp_path)
    assert done.returncode == 0, done.stderr
    lines = list(csv.DictReader((tmp_path / "c.csv").read_text().splitlines()))
    assert [(line["method"], line["n"]) for line in lines] == [("paired t", "1"), ("McNemar", "270")]
    assert float(lines[0]["first_mean"]) == pytest.approx(float(lines[1]["first_mean"]))
    assert "For these two trained models, the numbers" in done.stdout


def test_test_splits_of_different_seeds_are_not_averaged(tmp_path, capsys):
    """As those of ``dataset.split_seed=null``: each pair of a seed has its own sequences."""
    rng = np.random.default_rng(0)
    for model in ("legs", "gru"):
        for seed in range(2):
            own = {"name": "digits", "seed": seed, "sha256": {"test": str(seed)}}
            classified(tmp_path, model, rng.random(30) < 0.8, seed=seed, data=own)
    text = printed(capsys, tmp_path, "--rows", "legs", "gru")
    assert text.count("McNemar, seed") == 2
    assert "bootstrap, 2 seeds" not in text
    assert "no test over the sequences of all seeds on digits: each seed has its own test split" in text
    assert "trained models" not in text
