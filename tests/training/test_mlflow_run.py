"""What is logged to a run of MLflow, without MLflow: points of a run that resumes, and a server that stops to answer."""

import re
import sys
from collections import namedtuple
from dataclasses import replace
from types import SimpleNamespace

import pytest

from seqmem.errors import UserError
from seqmem.results import RunFolder
from seqmem.results.experiment import Experiment, identity
from seqmem.training.config import RunnerConfig
from seqmem.training.loop import mlflow_run
from seqmem.training.loop.mlflow_run import MlflowRun
from seqmem.training.loop.trackers import logged_to

Metric = namedtuple("Metric", "key value timestamp step")


class Server:
    """A store that keeps points by the name of their metric and runs by their tags, and can stop to answer."""

    def __init__(self):
        self.points, self.status, self.answers, self.tags = {}, None, True, []

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id=name, lifecycle_stage="active")

    def search_runs(self, experiments, query, max_results):
        name, value = re.fullmatch(r"tags\.`(.*)` = '(.*)'", query).groups()
        return [self._run(k) for k, tags in enumerate(self.tags) if tags[name] == value]

    def create_run(self, experiment, run_name, tags):
        self.tags.append(dict(tags))
        return self._run(len(self.tags) - 1)

    def update_run(self, run, status):
        self.status = status

    def set_tag(self, run, key, value):
        self.tags[run][key] = value

    def _run(self, number):
        return SimpleNamespace(info=SimpleNamespace(run_id=number))

    def get_metric_history(self, run, name):
        return self.points.get(name, [])

    def log_batch(self, run, metrics=(), params=()):
        if not self.answers:
            raise ConnectionError("Max retries exceeded with url")
        for metric in metrics:
            self.points.setdefault(metric.key, []).append(metric)

    def set_terminated(self, run, status):
        self.status = status


@pytest.fixture
def server(monkeypatch):
    server = Server()
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=lambda tracking_uri: server))
    monkeypatch.setitem(sys.modules, "mlflow.entities", SimpleNamespace(Metric=Metric, Param=lambda key, value: (key, value)))
    return server


def test_a_run_that_resumes_gets_each_point_once(server):
    first = MlflowRun(server, "id")
    first.log_metrics({"val/loss": 3.0}, 9)
    first.log_metrics({"val/loss": 2.0}, 19)
    resumed = MlflowRun(server, "id")
    resumed.log_metrics({"val/loss": 2.0, "train/loss": 4.0}, 19)
    resumed.log_metrics({"val/loss": 1.0}, 29)
    assert [(each.step, each.value) for each in server.points["val/loss"]] == [(9, 3.0), (19, 2.0), (29, 1.0)]
    assert [(each.step, each.value) for each in server.points["train/loss"]] == [(19, 4.0)]


def test_a_run_belongs_to_settings_code_data_backend_and_seed_and_not_to_a_folder(server, tmp_path):
    def opened(folder, **different):
        trial = RunFolder(tmp_path / folder / "first" / "seed_0")
        trial.path.mkdir(parents=True, exist_ok=True)
        trial.write_config({"train": {"lr": 0.1}})
        trial.write_record({"group": "g", "code": "c", "data": "d", "backend": "cpu compiled", "seed": 0, **different})
        return mlflow_run.open_run("http://host:5000", "mine", trial).version

    others = [{"group": "h"}, {"code": "h"}, {"data": "h"}, {"backend": "h"}, {"seed": 1}]
    runs = [opened("a"), *(opened(f"b{k}", **other) for k, other in enumerate(others))]
    assert runs == [0, 1, 2, 3, 4, 5]
    assert server.tags[0]["seqmem.folder"] == str(tmp_path / "a" / "first" / "seed_0")
    assert [opened("moved"), opened("b0", **others[0])] == [0, 1]


def test_the_key_of_a_trial_is_the_end_of_its_usual_folder(tmp_path):
    experiment = Experiment.of(tmp_path, "digits_gru", "g", "c", {"samples": 3}, "cpu compiled")
    record = {"group": "g", "code": "c", "data": experiment.data, "backend": "cpu compiled", "seed": 2}
    assert identity(record) == f"{experiment.folder.name.rpartition('_')[2]}-{experiment.trial(2).path.name}"


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+pysqlite"])
def test_a_database_file_has_one_name_in_every_working_folder(scheme, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = f"{scheme}:///{tmp_path}/logs/mlflow.db?timeout=9"
    for given in (f"{scheme}:///logs/mlflow.db?timeout=9", expected):
        assert mlflow_run.tracking_uri(given) == mlflow_run.absolute(given) == expected
        assert mlflow_run.label(given) == f"mlflow at {expected}"
    for given in ("sqlite://", "sqlite:///:memory:", "http://host/x", "databricks"):
        assert mlflow_run.tracking_uri(given) == given


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
