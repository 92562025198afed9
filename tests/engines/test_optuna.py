"""Searches by Optuna: points, seeds, pruning, budgets, and searches that are killed."""

import json
import sqlite3
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from seqmem.results import RunFolder
from tests import program
from tests.engines.commands import TINY, found, require

require("optuna", "optuna")
pytestmark = pytest.mark.cluster

SEARCH = ("-m", "hydra/sweeper=optuna", "model=rnn")
FIXED = tuple(argument for argument in TINY if not argument.startswith("train.lr="))
INTERVAL = "train.lr=tag(log,interval(0.0001,0.1))"


def run(*arguments, cwd, **keywords):
    cwd.mkdir(exist_ok=True)
    return program.run(["train.py", *SEARCH, *arguments], cwd, **keywords)


def rows(database, query):
    with sqlite3.connect(database) as connection:
        return connection.execute(query).fetchall()


def sweep_of(folder) -> Path:
    [sweep] = (folder / "runs").glob("sweep_digits_*")
    return sweep


def states(folder, database=None):
    return [state for [state] in rows(database or sweep_of(folder) / "study.db", "select state from trials order by number")]


def points(folder):
    return rows(sweep_of(folder) / "study.db", "select trial_id, param_name, param_value from trial_params order by 1, 2")


def records(folder):
    return [json.loads(path.read_text()) for path in sorted(folder.glob("runs/digits_*/seed_*/record.json"))]


def test_a_search_is_continued_in_its_database_and_names_the_best(tmp_path):
    """The number of points is that of the study, so a repeated command trains nothing."""
    store = ("hydra.sweeper.study_name=lr", "hydra.sweeper.storage=sqlite:///lr.db")
    for trials, trained in ((2, 2), (3, 1), (3, 0)):
        done = run(*store, *FIXED, INTERVAL, f"hydra.sweeper.n_trials={trials}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert done.stdout.count("; in runs/digits_rnn_") == 2 * trained
    jobs = json.loads((sweep_of(tmp_path) / "sweep.json").read_text())["jobs"]
    assert len(jobs) == len(records(tmp_path)) == 3
    values = [value for [value] in rows(tmp_path / "lr.db", "select value from trial_values")]
    assert sorted(values) == sorted(record["result"]["val/accuracy"] for record in records(tmp_path))
    assert rows(tmp_path / "lr.db", "select direction from study_directions") == [("MAXIMIZE",)]
    best = yaml.safe_load((sweep_of(tmp_path) / "optimization_results.yaml").read_text())
    assert best["best_value"] == max(values)
    assert best["points"] == {"complete": 3}
    [command] = [line for line in done.stdout.splitlines() if line.startswith("python ") and "train.py" in line]
    assert f" train.lr={best['best_params']['train.lr']!r} " in f"{command} "

    once = run(*FIXED, INTERVAL, "hydra.sweeper.n_trials=3", cwd=tmp_path / "once")
    assert once.returncode == 0, once.stderr
    assert found(tmp_path / "once" / "runs") == found(tmp_path / "runs")
    other = run(*store, *FIXED, INTERVAL, "train.batch_size=30", cwd=tmp_path)
    assert other.returncode == 2
    assert "hydra.sweeper.study_name: got lr of sqlite:///lr.db, which was begun with other settings" in other.stderr
    assert len(other.stderr.splitlines()) == 1


def test_a_failed_job_fails_its_point_and_not_the_search(tmp_path):
    diverging = ("train.optimizer=sgd", "model.cell_args.hidden_activation=relu", "train.lr=choice(1e30,0.01)")
    done = run("hydra.sweeper.seed=1", *FIXED, *diverging, "hydra.sweeper.n_trials=4", cwd=tmp_path)
    assert set(states(tmp_path)) == {"FAIL", "COMPLETE"}
    assert done.returncode == 2
    assert "error: 1 of 2 jobs failed" in done.stderr
    best = yaml.safe_load((sweep_of(tmp_path) / "optimization_results.yaml").read_text())
    assert best["best_params"] == {"train.lr": 0.01}


@pytest.mark.parametrize("workers", [1, 2])
def test_the_pruner_stops_points_that_are_worse_and_they_are_no_failures(workers, tmp_path):
    """The first point decides: with one for comparison, the median is its curve."""
    pruner = ("hydra.sweeper.pruner=median", "hydra.sweeper.pruner_args={n_startup_trials: 1}", "hydra.sweeper.sampler=grid")
    many = ("train.epochs=6", f"runner.workers={workers}", "runner.ntrials=2")
    done = run(*FIXED[:2], *FIXED[3:], *many, "train.lr=0.05,1e-7,2e-7,3e-7,0.04", *pruner, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert states(tmp_path).count("FAIL") == 0
    assert "PRUNED" in states(tmp_path)
    assert "COMPLETE" in states(tmp_path)
    pruned = [record for record in records(tmp_path) if record["status"] == "pruned"]
    assert pruned
    assert all(record["reason"].startswith(f"pruned by the search after epoch {record['epochs']} of 6") for record in pruned)
    assert len(list(tmp_path.glob("runs/digits_*/seed_*/checkpoints/last.ckpt"))) == len(records(tmp_path))
    assert "pruned" in (sweep_of(tmp_path) / "table.txt").read_text()
    best = yaml.safe_load((sweep_of(tmp_path) / "optimization_results.yaml").read_text())
    assert best["best_params"]["train.lr"] in (0.05, 0.04)
    assert best["points"] == {"complete": states(tmp_path).count("COMPLETE"), "pruned": states(tmp_path).count("PRUNED")}
    assert done.stdout.count("search sweep_digits") == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_search_resumes_its_point_and_ends_as_if_it_had_not_been_killed(workers, tmp_path):
    options = (*FIXED[:2], *FIXED[3:], "train.epochs=12", INTERVAL, "hydra.sweeper.n_trials=3")
    options += ("hydra.sweeper.sampler=random",)  # the points of tpe depend on which of two ends first
    options += ("hydra.sweeper.pruner=asha", "hydra.sweeper.pruner_args={min_resource: 4, reduction_factor: 50}")

    def in_the_second_point():
        epochs = [len(path.read_text().splitlines()) - 1 for path in tmp_path.glob("killed/runs/digits_*/*/metrics.csv")]
        return len(epochs) > 1 and any(2 <= each < 11 for each in epochs)

    with pytest.raises(program.subprocess.TimeoutExpired):
        run(*options, f"runner.workers={workers}", cwd=tmp_path / "killed", until=in_the_second_point)
    assert "RUNNING" in states(tmp_path / "killed")
    done = run(*options, f"runner.workers={3 - workers}", cwd=tmp_path / "killed")
    assert done.returncode == 0, done.stderr
    assert run(*options, "runner.workers=1", cwd=tmp_path / "whole").returncode == 0
    assert states(tmp_path / "killed") == ["COMPLETE"] * 3
    assert points(tmp_path / "killed") == points(tmp_path / "whole")
    assert found(tmp_path / "killed" / "runs") == found(tmp_path / "whole" / "runs")
    assert any(record["resumed_at"] for record in records(tmp_path / "killed"))
    query = "select trial_id, step, intermediate_value from trial_intermediate_values order by 1, 2"
    curves = [rows(sweep_of(tmp_path / name) / "study.db", query) for name in ("killed", "whole")]
    assert curves[0] == curves[1]
    assert len(curves[0]) == 3 * 12


def test_a_point_stays_pruned_if_the_command_ended_before_its_report(tmp_path):
    import optuna

    from seqmem.cli.search.points import Point

    folder = RunFolder(tmp_path / "seed_0")
    folder.path.mkdir()
    (folder.path / "record.json").write_text(json.dumps({"status": "pruned"}))
    experiment = SimpleNamespace(folder=tmp_path, trial=lambda seed: RunFolder(tmp_path / f"seed_{seed}"))
    for prunes in (True, False):
        trial = optuna.create_study(pruner=optuna.pruners.NopPruner()).ask()
        point = Point(trial, [], prunes, ExitStack(), reported=[1, 2])
        point.begin(experiment, 0, "val/accuracy")
        assert point.stopped == prunes
    point = Point(trial, [], True, ExitStack(), reported=[1, 2])
    point.begin(experiment, 0, "val/accuracy")
    assert point.judge(0)(2, 0.5, False)
    assert point.judge(1)(1, 0.5, False)


def test_a_grid_has_each_combination_once_and_the_mean_of_its_seeds(tmp_path):
    options = ("train.lr=0.01,0.05", "train.batch_size=range(31,63,31)", "hydra.sweeper.sampler=grid")
    fixed = [argument for argument in FIXED if not argument.startswith("train.batch_size")]
    done = run(*fixed, *options, "runner.ntrials=2", "runner.workers=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found_points = points(tmp_path)
    assert len(found_points) == 8
    assert len({tuple(value for trial, _, value in found_points if trial == number) for number in range(1, 5)}) == 4
    [(_, first)] = rows(sweep_of(tmp_path) / "study.db", "select trial_id, value from trial_values order by 1 limit 1")
    query = "select value_json from trial_user_attributes where key = 'folder' order by trial_id limit 1"
    [[folder]] = rows(sweep_of(tmp_path) / "study.db", query)
    seeds = [json.loads(path.read_text()) for path in Path(json.loads(folder)).glob("seed_*/record.json")]
    assert first == pytest.approx(sum(record["result"]["val/accuracy"] for record in seeds) / 2)


def test_a_budget_of_minutes_ends_a_search_without_a_number_of_points(tmp_path):
    budget = ("hydra.sweeper.n_trials=null", "hydra.sweeper.timeout_minutes=0.05")
    done = run(*FIXED, INTERVAL, *budget, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 1 <= len(states(tmp_path)) < 30
    assert "search sweep_digits" in done.stdout
    assert "0.05 minutes" in done.stdout


@pytest.mark.parametrize(
    ("searched", "message"),
    [
        ("train.lr=interval(-1,0.1)", "train.lr: got -1"),
        ("train.lr=0.1", "hydra/sweeper=optuna: got no key with several values"),
        ("train.optimizer=choice(adam,sdg)", "did you mean 'sgd'?"),
        ("train.lr=interval(0.01,0.1) train.epochs=many", "train.epochs: got 'many'"),
        ("train.lr=interval(0.01,0.1) runner.devices=2", "runner.devices: got 2 with -m"),
        ("train.lr=interval(0.01,0.1) hydra.sweeper.direction=up", "hydra.sweeper.direction: got 'up', expected 'minimize'"),
        ("train.lr=interval(0.01,0.1) hydra.sweeper.sampler=grid", "train.lr: got an interval with hydra.sweeper.sampler=grid"),
        ("train.lr=interval(0.01,0.1) hydra.sweeper.sampler_args.n=3", "hydra.sweeper.sampler_args: got n, expected among"),
        ("train.lr=interval(0.01,0.1) hydra.sweeper.pruner_args={n:3}", "hydra.sweeper.pruner_args: got n, expected none"),
        (
            "train.lr=interval(0.01,0.1) hydra.sweeper.storage=sqlite:///no/lr.db",
            "hydra.sweeper.storage: got sqlite:///no/lr.db",
        ),
        ("dataset=copying,adding dataset.length=30", "dataset: got copying (accuracy) and adding (mse) in one search"),
    ],
)
def test_what_is_searched_is_checked_before_anything_is_trained(searched, message, tmp_path):
    searched = searched if "dataset=" in searched else f"dataset=digits {searched}"
    done = run(*searched.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
