"""The jobs of a sweep in processes of their own, through Hydra's launchers."""

import json
import signal
from importlib.util import find_spec

import pytest

from tests.engines.commands import TINY, found, interrupted, run, start, statuses

pytestmark = pytest.mark.cluster

joblib = pytest.mark.skipif(
    find_spec("hydra_plugins.hydra_joblib_launcher") is None if find_spec("hydra_plugins") else True,
    reason="hydra-joblib-launcher is not installed: pip install -e '.[joblib]'",
)
submitit = pytest.mark.skipif(
    find_spec("submitit") is None, reason="hydra-submitit-launcher is not installed: pip install -e '.[slurm]'"
)
launchers = [
    pytest.param(("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"), marks=joblib, id="joblib"),
    pytest.param(("hydra/launcher=submitit_local",), marks=submitit, id="submitit_local"),
]


@pytest.mark.parametrize("launcher", launchers)
def test_a_sweep_gives_the_numbers_of_the_sequential_one(launcher, sequential, tmp_path):
    done = run("-m", *launcher, *TINY, "model=lstm,rnn", "runner.ntrials=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert found(tmp_path / "runs") == sequential
    [sweep] = (tmp_path / "runs").glob("sweep_*")
    manifest = json.loads((sweep / "sweep.json").read_text())
    assert [(job["model"], job["failure"]) for job in manifest["jobs"]] == [("lstm", None), ("rnn", None)]
    assert manifest["command"][1:3] == ["-m", launcher[0]]
    assert done.stdout.count("n trials") == 1
    record = json.loads(next((tmp_path / "runs").rglob("digits_rnn_*/seed_0/record.json")).read_text())
    assert record["command"][0] == "train.py"
    assert "model=rnn" in record["command"]
    assert record["machine"]["threads"] == 1


@joblib
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_every_worker_saves_a_checkpoint_before_it_is_interrupted(number, status, tmp_path):
    """The third job does not begin. Afterwards the same command resumes."""
    long = [*TINY, "train.epochs=200", "model=lstm,gru,rnn"]
    command = start("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *long, cwd=tmp_path)
    stderr = interrupted(command, number, lambda: len(list(tmp_path.glob("runs/*/seed_0/metrics.csv"))) == 2)
    assert command.returncode == status
    assert stderr.endswith("error: interrupted; the same command resumes\n")
    assert statuses(tmp_path) == ["interrupted", "interrupted"]
    assert len(list(tmp_path.glob("runs/*/seed_0/checkpoints/last.ckpt"))) == 2
    [manifest] = tmp_path.glob("runs/sweep_*/sweep.json")
    assert [job["failure"] for job in json.loads(manifest.read_text())["jobs"]] == [None, None, None]


@pytest.mark.parametrize("launcher", launchers)
def test_a_job_that_fails_in_a_worker_is_named_at_the_end(launcher, tmp_path):
    diverging = ("train.optimizer=sgd", "model=rnn", "model.cell_args.hidden_activation=relu", "train.lr=1e30,0.01")
    done = run("-m", *launcher, *TINY[:4], *TINY[5:], *diverging, cwd=tmp_path)
    assert done.returncode == 2
    assert "error: 1 of 2 jobs failed" in done.stderr
    assert "train.lr=1e+30: the training loss became" in done.stderr
    assert sorted(statuses(tmp_path)) == ["failed", "finished"]


@pytest.mark.parametrize("launcher", launchers)
def test_a_worker_starts_workers_that_make_batches(launcher, tmp_path):
    done = run("-m", *launcher, *TINY, "model=rnn", "train.epochs=1", "dataset.num_workers=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert statuses(tmp_path) == ["finished"]
