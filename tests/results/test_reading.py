"""Records and manifests below a folder: which trials they are, and the rows that they make."""

import csv
import json

import pytest

from seqmem import results
from seqmem.errors import UserError
from seqmem.results.curves import read_curve
from seqmem.results.record import digest
from tests.results.synthetic import COMMIT, configuration, rows_of, write_run, write_trials, written


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"status": "finished", "gro', "cannot be read"),
        ('{"status": "finished"}', "has no valid dataset, model, group, seed"),
        (None, "there is no record.json"),
    ],
)
def test_a_damaged_record_is_named_and_stops_nothing(content, reason, tmp_path, capsys):
    path = write_trials(tmp_path, [0.7, 0.8, 0.9]) / "seed_1"
    (path / "checkpoints").mkdir()
    (path / "record.json").unlink()
    if content is not None:
        (path / "record.json").write_text(content)
    files = written(tmp_path)
    [row] = csv.DictReader(files["table.csv"].decode().splitlines())
    assert (row["n"], row["states"], float(row["test_mean"])) == ("2", "1 damaged", pytest.approx(0.8))
    for name in ("table.txt", "table.md", "table.tex", "trials.csv", "report.html"):
        assert reason in files[name].decode(), name
        assert "seed_1" in files[name].decode(), name
    assert "3 trials, 1 of them not finished, in 1 row:" in capsys.readouterr().out


def test_a_finished_record_without_its_result_does_not_count(tmp_path):
    write_run(tmp_path / "a", configuration(), result={"val/accuracy": 0.5, "test/accuracy": None})
    [run] = results.find_runs(tmp_path)
    assert (run.status, run.finished) == ("damaged", False)
    assert "no number for test/accuracy" in run.reason


def test_a_record_of_unknown_identity_has_its_own_row(tmp_path):
    write_run(tmp_path / "b" / "seed_0", configuration())
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "record.json").write_text("{")
    unfinished = {(row.dataset, row.model): len(row.unfinished) for row in rows_of(tmp_path)}
    assert unfinished == {("digits", "legs"): 0, ("unknown", "unknown"): 1}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", b"a: ["),
        ("metrics.csv", b""),
        ("metrics.csv", b"epoch,val/accuracy\n0,0.5\n1,zero\n"),
    ],
)
def test_other_damaged_files_are_named_and_the_result_counts(name, content, tmp_path):
    path = write_trials(tmp_path, [0.7]) / "seed_0"
    (path / name).write_bytes(content)
    files = written(tmp_path)
    [trial] = csv.DictReader(files["trials.csv"].decode().splitlines())
    assert (trial["status"], trial["test"]) == ("finished", "0.7")
    assert trial["reason"].startswith(f"{name} cannot be read")


def test_failed_interrupted_and_running_trials_are_listed_with_their_reason(tmp_path):
    for seed, changes in enumerate(
        [
            {"status": "failed", "reason": "RuntimeError: <b>out of memory</b>\n& more"},
            {"status": "interrupted", "reason": "KeyboardInterrupt: "},
            {"status": "running", "process": 4242},
        ]
    ):
        write_run(tmp_path / f"seed_{seed}", configuration(seed=seed), epochs=2, **changes)
    files = written(tmp_path)
    assert "% failed: ../seed_0: RuntimeError: <b>out of memory</b> & more\n" in files["table.tex"].decode()
    assert "1 failed, 1 interrupted, 1 running" in files["table.md"].decode()
    page = files["report.html"].decode()
    assert "RuntimeError: &lt;b&gt;out of memory&lt;/b&gt; &amp; more" in page
    assert "no end is recorded: it is still running, or was killed (process 4242)" in page
    assert "curves.png" not in files


def test_a_manifest_says_which_trials_there_should_be(tmp_path):
    path = write_trials(tmp_path / "runs", [0.7, 0.8], model="lstm")
    write_trials(tmp_path / "runs", [0.9], model="gru")
    (tmp_path / "runs" / "begun" / "seed_0").mkdir(parents=True)
    jobs = [
        {"dataset": "digits", "model": "rnn", "group": "0" * 12, "folder": "../../runs/begun", "seeds": [0]},
        {
            "overrides": ["model=lstm"],
            "dataset": "digits",
            "model": "lstm",
            "group": digest(configuration("lstm")),
            "code": "1a2b3c4d5e6f",
            "folder": f"../../runs/{path.name}/",
            "seeds": [0, 1, 2],
        },
    ]
    sweep = tmp_path / "sweeps" / "one"
    sweep.mkdir(parents=True)
    (sweep / "sweep.json").write_text(json.dumps({"command": ["train.py"], "started": "now", "jobs": jobs}))
    rnn, lstm = rows_of(sweep)
    assert [(run.status, run.reason) for run in rnn.runs] == [("missing", "it was started, but has no record")]
    assert [run.status for run in lstm.runs] == ["finished", "finished", "missing"]
    assert lstm.runs[2].reason == "it was not started"
    assert lstm.runs[2].record["seed"] == 2
    assert lstm.results("test") == [0.7, 0.8]


def test_trials_that_were_not_started_are_on_the_data_set_that_a_job_with_the_same_settings_loaded(tmp_path):
    path = write_trials(tmp_path / "runs", [0.9], model="gru")
    record = json.loads((path / "seed_0" / "record.json").read_text())
    sweep = results.Sweep(tmp_path / "sweep")
    common = {"dataset": "files", "overrides": [], "data_settings": "1" * 12}
    gru = {**common, "model": "gru", "group": record["group"], "seeds": [0, 1]}
    lstm = {**common, "model": "lstm", "group": "0" * 12, "seeds": [0]}
    other = {**common, "model": "rnn", "group": "2" * 12, "seeds": [0], "data_settings": "3" * 12}
    sweep.add([gru, lstm, other])
    sweep.add([{**gru, "data_name": record["dataset"], "folder": path, "code": record["code"]}])
    sweep.add([{**gru, "failure": None}])
    found = [(row.dataset, row.model, [run.status for run in row.runs]) for row in rows_of(sweep.folder)]
    assert found == [
        (record["dataset"], "gru", ["finished", "missing"]),
        (record["dataset"], "lstm", ["missing"]),
        ("files", "rnn", ["missing"]),
    ]


def test_a_manifest_that_cannot_be_read_is_named(tmp_path):
    for content in ("{", "[]", '{"jobs": [{"seeds": [0]}]}', '{"jobs": 3}', '{"jobs": [3]}', "[" * 100_000):
        (tmp_path / "sweep.json").write_text(content)
        with pytest.raises(UserError, match=r"cannot read the sweep's manifest .*sweep\.json"):
            results.find_runs(tmp_path)


def test_trials_are_in_the_order_of_their_starts_whatever_the_offset(tmp_path):
    """Earlier records have local times; a record without a time comes last."""
    starts = ["2026-01-01T22:59:59-0200", "2026-01-02T02:00:00+0100", "2026-01-02T01:00:01+0000", "no time", None]
    for name, started in zip("dbace", starts, strict=True):
        write_run(tmp_path / name, configuration(seed="dbace".index(name)), started=started)
    assert [run.record["started"] for run in results.find_runs(tmp_path)] == [*starts[:3], None, "no time"]


def test_trials_of_different_code_are_not_averaged(tmp_path):
    config = configuration()
    write_run(tmp_path / "a", config, 0.7, code="aaaaaaaaaaaa", started="2026-01-01")
    write_run(tmp_path / "b", config, 0.8, code="bbbbbbbbbbbb", started="2026-01-02")
    write_run(tmp_path / "c", config, 0.9, code=None, commit=f"{COMMIT}-dirty", started="2026-01-03")
    write_run(tmp_path / "d", configuration("gru"), 0.6, code="bbbbbbbbbbbb", started="2026-01-04")
    assert [row.model for row in rows_of(tmp_path)] == [
        "legs (code=aaaaaaa)",
        "legs (code=bbbbbbb)",
        "legs (commit=5fa96df-dirty)",
        "gru",
    ]


def test_trials_of_different_data_are_not_averaged(tmp_path):
    config = configuration()
    write_run(tmp_path / "a", config, 0.2, data="aaaaaaaaaaaa", started="2026-01-01")
    write_run(tmp_path / "b", config, 0.8, data="bbbbbbbbbbbb", started="2026-01-02")
    assert [(row.dataset, row.model, row.results("test")) for row in rows_of(tmp_path)] == [
        ("digits (data=aaaaaaa)", "legs", [0.2]),
        ("digits (data=bbbbbbb)", "legs", [0.8]),
    ]


def test_rows_on_different_data_are_rows_of_different_data_sets(tmp_path):
    """Also of different models, whose rows would otherwise be ranked together."""
    for k, (model, test, data) in enumerate([("legs", 0.2, "a"), ("gru", 0.8, "b"), ("rnn", 0.5, "a"), ("lstm", 0.9, None)]):
        write_run(
            tmp_path / str(k) / "seed_0", configuration(model), test, data=data and data * 12, started=f"2026-01-0{k + 1}"
        )
    rows = rows_of(tmp_path)
    assert [(row.dataset, row.model) for row in rows] == [
        ("digits (data=aaaaaaa)", "legs"),
        ("digits (data=aaaaaaa)", "rnn"),
        ("digits (data=bbbbbbb)", "gru"),
        ("digits (data=unknown)", "lstm"),
    ]
    assert [row.model for row in results.best_by_validation(rows)] == ["rnn", "gru", "lstm"]
    trials = csv.DictReader(written(tmp_path)["trials.csv"].decode().splitlines())
    assert [trial["data"] for trial in trials] == ["a" * 12, "a" * 12, "b" * 12, ""]


def test_rows_of_one_known_and_of_unknown_data_share_the_name(tmp_path):
    for model, data in (("legs", "a" * 12), ("gru", None)):
        write_run(tmp_path / model / "seed_0", configuration(model), data=data)
    assert {row.dataset for row in rows_of(tmp_path)} == {"digits"}


def test_a_trial_found_twice_counts_once(tmp_path, capsys):
    for k, seed in enumerate([0, 1, 0]):
        write_run(tmp_path / str(k), configuration(seed=seed), [0.7, 0.8, 0.9][k], started=f"2026-01-0{k + 1}")
    [row] = rows_of(tmp_path)
    assert row.results("test") == [0.7, 0.8]
    [again] = [run for run in row.runs if not run.finished]
    assert (again.status, again.reason) == ("repeated", f"the same trial as {tmp_path / '0'}")
    assert (row.unfinished, row.states) == ([], "")
    files = written(tmp_path)
    assert "3 trials, in 1 row:" in capsys.readouterr().out
    assert "not finished" not in files["table.md"].decode()
    assert f"repeated: ../2: the same trial as {tmp_path / '0'}" in files["table.txt"].decode()
    results.report(tmp_path)
    assert f"repeated: {tmp_path / '2'}: the same trial as" in capsys.readouterr().out


def test_trials_that_never_started_are_found_below_a_folder(tmp_path):
    """Those of a manifest, unless they have a record elsewhere, and a manifest that cannot be read."""
    path = write_trials(tmp_path / "runs", [0.7], model="lstm")
    job = {"dataset": "digits", "model": "lstm", "group": digest(configuration("lstm")), "seeds": [0, 1], "folder": None}
    other = {"dataset": "digits", "model": "gru", "group": "0" * 12, "seeds": [3], "folder": None, "failure": "no data"}
    for name, content in {"one": {"jobs": [job, other]}, "two": {"jobs": [other]}, "three": {}}.items():
        sweep = tmp_path / "runs" / name
        sweep.mkdir()
        (sweep / "sweep.json").write_text(json.dumps(content))
    found = results.find_runs(tmp_path)
    assert sorted((run.record["model"], run.status) for run in found) == [
        ("gru", "missing"),
        ("lstm", "finished"),
        ("lstm", "missing"),
        ("unknown", "damaged"),
    ]
    assert path.exists()
    assert "no data" in [run.reason for run in found]


def test_invalid_values_of_a_record_are_damage(tmp_path):
    invalid = [{"code": ["a"]}, {"commit": 5}, {"result_last": 3}, {"overrides": 3}, {"data": []}, {"status": "x\n\\input{y}"}]
    for k, changes in enumerate(invalid):
        write_run(tmp_path / str(k), configuration("gru", seed=k), 0.9, **changes)
    files = written(tmp_path)
    trials = list(csv.DictReader(files["trials.csv"].decode().splitlines()))
    assert [trial["status"] for trial in trials] == ["damaged"] * len(invalid)
    assert b"\n\\input" not in files["table.tex"]


def test_trials_of_several_devices_are_a_row_of_their_own():
    one, two = configuration(), configuration()
    one["runner"]["devices"], two["runner"]["devices"] = 1, 2
    assert digest(configuration()) == digest(one) != digest(two)


def test_settings_of_the_data_stand_with_the_data_set(tmp_path):
    for k, (hz, lr) in enumerate([(0.5, 0.1), (0.5, 0.2), (1.0, 0.1)]):
        write_run(tmp_path / str(k), configuration(dataset="ct", lr=lr, train_hz=hz), started=f"2026-01-0{k + 1}")
    assert [(row.dataset, row.model) for row in rows_of(tmp_path)] == [
        ("ct (train_hz=0.5)", "legs (train.lr=0.1)"),
        ("ct (train_hz=0.5)", "legs (train.lr=0.2)"),
        ("ct (train_hz=1.0)", "legs"),
    ]


def test_an_unknown_config_is_labelled_by_its_overrides(tmp_path):
    jobs = [
        {"dataset": "digits", "model": "legs", "group": f"{k}" * 12, "folder": f"{k}", "seeds": [0], "overrides": [f"seed={k}"]}
        for k in range(2)
    ]
    (tmp_path / "sweep.json").write_text(json.dumps({"jobs": jobs}))
    assert [row.model for row in rows_of(tmp_path)] == ["legs (seed=0)", "legs (seed=1)"]


def test_an_epoch_without_the_metric_is_left_out(tmp_path):
    run = write_run(tmp_path / "a", configuration())
    (run.path / "metrics.csv").write_text("epoch,val/accuracy,train/loss\n0,0.5,1\n1,,1\n2,0.25,1\n")
    assert read_curve(run, "val/accuracy") == [(1, 0.5), (3, 0.25)]


def test_the_best_row_of_each_data_set_is_that_of_validation(tmp_path):
    for k, (model, test, dataset) in enumerate([("legs", 0.7, "a"), ("gru", 0.8, "a"), ("legs", 0.7, "b"), ("gru", 0.8, "b")]):
        metric = {"metric": "mse", "best": "min"} if dataset == "b" else {}
        write_run(tmp_path / str(k), configuration(model, dataset), test, started=f"2026-01-0{k + 1}", **metric)
    write_run(tmp_path / "nan", configuration("rnn", "a"), float("nan"), started="2026-01-09")
    write_run(tmp_path / "failed", configuration("lmu", "c"), status="failed", reason="no")
    for seed, given in enumerate([{}, {"status": "failed", "reason": "no"}]):  # a row whose better trials are left
        write_run(
            tmp_path / "in part" / f"seed_{seed}", configuration("rnn", "b"), 0.01, metric="mse", best="min", seed=seed, **given
        )
    assert [(row.dataset, row.model) for row in results.best_by_validation(rows_of(tmp_path))] == [("a", "gru"), ("b", "legs")]
