"""A search through Optuna, kept in a file database."""

import json
import sqlite3

import pytest
import yaml

from tests import program
from tests.engines.commands import TINY, require

require("optuna", "optuna")
pytestmark = pytest.mark.cluster

SEARCH = ("-m", "hydra/sweeper=optuna", "hydra.sweeper.study_name=lr", "model=rnn")
STORE = "hydra.sweeper.storage=sqlite:///study.db"
FIXED = tuple(argument for argument in TINY if not argument.startswith("train.lr="))


def run(*arguments, cwd):
    return program.run(["train.py", *arguments], cwd)


def rows(database, query):
    with sqlite3.connect(database) as connection:
        return connection.execute(query).fetchall()


def test_a_search_goes_on_in_its_database_and_keeps_the_best(tmp_path):
    interval = "train.lr=tag(log,interval(0.0001,0.1))"
    for trials in (2, 1):
        done = run(*SEARCH, STORE, *FIXED, interval, f"hydra.sweeper.n_trials={trials}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    [sweep] = (tmp_path / "runs").glob("sweep_digits_rnn_*")
    jobs = json.loads((sweep / "sweep.json").read_text())["jobs"]
    records = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("digits_*/seed_0/record.json")]
    assert len(jobs) == len(records) == 3
    values = [value for [value] in rows(tmp_path / "study.db", "select value from trial_values")]
    assert sorted(values) == sorted(record["result"]["val/accuracy"] for record in records)
    assert rows(tmp_path / "study.db", "select direction from study_directions") == [("MAXIMIZE",)]
    best = yaml.safe_load((sweep / "optimization_results.yaml").read_text())
    assert best["best_value"] == max(values)
    assert 0.0001 <= best["best_params"]["train.lr"] <= 0.1


def test_a_failed_job_fails_its_trial_and_not_the_search(tmp_path):
    diverging = ("train.optimizer=sgd", "model.cell_args.hidden_activation=relu", "train.lr=choice(1e30,0.01)")
    seed = "hydra.sweeper.sampler.seed=1"  # which draws both
    done = run(*SEARCH, STORE, seed, *FIXED, *diverging, "hydra.sweeper.n_trials=4", cwd=tmp_path)
    states = dict(rows(tmp_path / "study.db", "select state, count(*) from trials group by state"))
    assert states["FAIL"] + states["COMPLETE"] == 4
    assert min(states.values()) > 0
    assert done.returncode == 2
    assert "error: 1 of 2 jobs failed" in done.stderr
    [sweep] = (tmp_path / "runs").glob("sweep_*")
    assert yaml.safe_load((sweep / "optimization_results.yaml").read_text())["best_params"] == {"train.lr": 0.01}


@pytest.mark.parametrize(
    ("searched", "message"),
    [
        ("train.lr=interval(-1,0.1)", "train.lr: got -1"),
        ("train.optimizer=choice(adam,sdg)", "did you mean 'sgd'?"),
        ("train.lr=interval(0.01,0.1) train.epochs=many", "train.epochs: got 'many'"),
        ("train.lr=interval(0.01,0.1) runner.devices=2", "runner.devices: got 2 with -m"),
        ("train.lr=interval(0.01,0.1) hydra.sweeper.direction=up", "hydra.sweeper.direction: got up, expected a direction"),
        (
            "train.lr=interval(0.01,0.1) hydra.sweeper.storage=sqlite:///no/lr.db",
            "hydra.sweeper.storage: got sqlite:///no/lr.db",
        ),
        ("dataset=copying,adding dataset.length=30", "dataset: got copying (accuracy) and adding (mse) in one search"),
    ],
)
def test_what_is_searched_is_checked_before_anything_is_trained(searched, message, tmp_path):
    searched = searched if "dataset=" in searched else f"dataset=digits {searched}"
    done = run(*SEARCH, *searched.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
