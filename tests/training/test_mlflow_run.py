"""What is logged to a run of MLflow, without MLflow: points of a run that resumes, and a server that stops to answer."""

import sys
from collections import namedtuple
from dataclasses import replace
from types import SimpleNamespace

import pytest

from seqmem.errors import UserError
from seqmem.training.config import RunnerConfig
from seqmem.training.loop import mlflow_run
from seqmem.training.loop.mlflow_run import MlflowRun
from seqmem.training.loop.trackers import logged_to

Metric = namedtuple("Metric", "key value timestamp step")


class Server:
    """A store that keeps points by the name of their metric, and can stop to answer."""

    def __init__(self):
        self.points, self.status, self.answers = {}, None, True

    def get_metric_history(self, run, name):
        return self.points.get(name, [])

    def log_batch(self, run, metrics):
        if not self.answers:
            raise ConnectionError("Max retries exceeded with url")
        for metric in metrics:
            self.points.setdefault(metric.key, []).append(metric)

    def set_terminated(self, run, status):
        self.status = status


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "mlflow.entities", SimpleNamespace(Metric=Metric))
    return Server()


def test_a_run_that_resumes_gets_each_point_once(server):
    first = MlflowRun(server, "id")
    first.log_metrics({"val/loss": 3.0}, 9)
    first.log_metrics({"val/loss": 2.0}, 19)
    resumed = MlflowRun(server, "id")
    resumed.log_metrics({"val/loss": 2.0, "train/loss": 4.0}, 19)
    resumed.log_metrics({"val/loss": 1.0}, 29)
    assert [(each.step, each.value) for each in server.points["val/loss"]] == [(9, 3.0), (19, 2.0), (29, 1.0)]
    assert [(each.step, each.value) for each in server.points["train/loss"]] == [(19, 4.0)]


def test_a_server_that_stops_to_answer_does_not_stop_the_training(server, capsys):
    runner = RunnerConfig(mlflow="http://host:5000", tensorboard=True)
    run = MlflowRun(server, "id")
    run.log_metrics({"val/loss": 3.0}, 9)
    assert logged_to(runner, [run]) == ["tensorboard", "mlflow at http://host:5000"]
    server.answers = False
    run.log_metrics({"val/loss": 2.0}, 19)
    run.log_metrics({"val/loss": 1.0}, 29)
    assert logged_to(runner, [run]) == ["tensorboard"]
    [line] = capsys.readouterr().err.splitlines()
    assert line == "warning: runner.mlflow: no server answers there; the same command logs the rest later"
    server.answers = True
    later = MlflowRun(server, "id")
    for step, value in ((9, 3.0), (19, 2.0), (29, 1.0)):
        later.log_metrics({"val/loss": value}, step)
    assert [each.step for each in server.points["val/loss"]] == [9, 19, 29]
    assert logged_to(replace(runner, tensorboard=False), [later]) == ["mlflow at http://host:5000"]


def test_the_name_in_the_record_has_no_password():
    assert mlflow_run.label("https://me:secret@host/path") == "mlflow at https://host/path"


@pytest.mark.parametrize("place", ["http:/host", "file:///data/mlruns", "sqlite:/x.db", __file__])
def test_a_place_that_is_neither_a_folder_nor_a_tracking_uri_is_refused(place):
    with pytest.raises(UserError, match=r"runner\.mlflow: got .*, expected a folder, or a tracking URI"):
        mlflow_run.check_place(place)


@pytest.mark.parametrize("place", ["mlflow", "/data/mlflow", "databricks", "http://host:5000", "postgresql://me@host/db"])
def test_folders_and_tracking_uris_are_taken(place):
    mlflow_run.check_place(place)
