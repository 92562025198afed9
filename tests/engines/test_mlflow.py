"""MLflow: one run a trial, resumed with the trial, and closed before the next one begins."""

import os
import signal

import pytest

from tests import program
from tests.engines.commands import TINY, first_metrics, found, interrupted, require, run, start

require("mlflow", "mlflow")
pytestmark = pytest.mark.cluster


def runs(database):
    """The runs of the experiment ``mine`` by their names, and a function that returns a metric's steps and values."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{database}")
    found = client.search_runs([client.get_experiment_by_name("mine").experiment_id])

    def points(run, metric):
        return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, metric)]

    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: run for run in found}, points


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
def test_each_trial_of_a_sweep_is_a_run_of_its_own_in_training_and_afterwards(sequential, tmp_path):
    """Two at a time, then from the metrics of the finished trials to a second folder."""
    sweep = ("-m", *TINY, "model=lstm,rnn", "runner.ntrials=2", "runner.mlflow_experiment=mine")
    for folder, options in (("first", ("runner.workers=2",)), ("second", ())):
        done = run(*sweep, f"runner.mlflow={folder}", *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert done.stdout.count("logged to mlflow at sqlite:///") == (4 if folder == "second" else 0)
        assert found(tmp_path / "runs") == sequential
        logged, points = runs(tmp_path / folder / "mlflow.db")
        assert logged.keys() == {trial.removeprefix("runs/") for trial in found(tmp_path)}
        for trial, (_, result, metrics) in found(tmp_path).items():
            each = logged[trial.removeprefix("runs/")]
            assert each.info.status == "FINISHED"
            steps = [step - 1 for step in metrics["step"].values()]
            curve = points(each, "val/accuracy")
            assert [step for step, _ in curve] == steps
            assert [value for _, value in curve] == pytest.approx(list(metrics["val/accuracy"].values()), rel=1e-12)
            assert [value for _, value in points(each, "test/accuracy")] == [result["test/accuracy"]]
            assert each.data.params["train.lr"] == "0.01"
            assert each.data.tags["seqmem.folder"] == str(tmp_path / trial)
            assert {"seqmem.dataset", "seqmem.model", "seqmem.seed", "seqmem.code", "seqmem.data"} <= each.data.tags.keys()


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
def test_a_trial_that_resumes_continues_its_run_and_logs_each_epoch_once(tmp_path):
    command = (*TINY[:2], *TINY[3:], "train.epochs=30", "model=rnn", "runner.mlflow=here", "runner.mlflow_experiment=mine")
    process = start(*command, cwd=tmp_path)
    metrics = first_metrics(process, tmp_path)
    interrupted(process, signal.SIGTERM, metrics.exists)
    before, _ = runs(tmp_path / "here" / "mlflow.db")
    assert [each.info.status for each in before.values()] == ["KILLED"]
    assert run(*command, cwd=tmp_path).returncode == 0
    after, points = runs(tmp_path / "here" / "mlflow.db")
    [(name, each)] = after.items()
    assert each.info.run_id == before[name].info.run_id
    assert each.info.status == "FINISHED"
    assert [step for step, _ in points(each, "val/accuracy")] == [7 * epoch + 6 for epoch in range(30)]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("http://127.0.0.1:9", "error: runner.mlflow: got 'http://127.0.0.1:9': no server answers there"),
        ("http:/127.0.0.1", "error: runner.mlflow: got 'http:/127.0.0.1', expected a folder, or a tracking URI"),
        ("ftp://host", "error: runner.mlflow: got 'ftp://host': "),
    ],
)
def test_a_place_without_a_server_is_one_line(place, message, tmp_path):
    done = program.run(["train.py", *TINY, "model=rnn", f"runner.mlflow={place}"], tmp_path)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(message)
