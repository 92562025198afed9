"""Sweeps: one table at the end, jobs that fail, and kills."""

import json
import random
import re
import shlex
import subprocess
import sys
import time
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from omegaconf import OmegaConf

from seqmem import results
from seqmem.cli import commandline, engines, overrides, plan, sweeps
from seqmem.cli import run as running
from seqmem.cli.search import settings
from seqmem.errors import UserError
from tests import program
from tests.program import ROOT
from tests.results.synthetic import configuration, rows_of, write_run, write_trials

SMALL = ("dataset=digits", "model.preset=tiny", "smoke_test=true", "train.batch_size=4")
TIMED = ["seconds", "sequences_per_second", "peak_memory_mib"]


def run(*arguments, cwd):
    return program.run(["train.py", *arguments], cwd)


SCRIPT = """
import gc, runpy, sys

usual = gc.get_threshold()
import seqmem.training.loop.trial as trial

def train(*arguments, as_ever=trial._train):
    print("while it trains:", gc.get_threshold() == usual, gc.get_freeze_count() > 100_000)
    return as_ever(*arguments)

trial._train = train
from seqmem.cli import startup
as_ever = startup.pause_collector
startup.pause_collector = lambda: (as_ever(), print("before:", gc.get_threshold()[0] > usual[0]))
from hydra._internal.config_loader_impl import ConfigLoaderImpl as Loader

def compose(self, *arguments, as_ever=Loader._load_configuration_impl, **options):
    print("composed")
    return as_ever(self, *arguments, **options)

Loader._load_configuration_impl = compose
runpy.run_path(TRAIN, run_name="__main__")
"""


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The folder and the output of a sweep of two jobs, one with a group of the user's own, which notes what it does."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "mine" / "model").mkdir(parents=True)
    text = (ROOT / "cfg" / "model" / "rnn.yaml").read_text()
    (folder / "mine" / "model" / "small.yaml").write_text(text.replace("hidden_size: 8", "hidden_size: 3"))
    script = folder / "script.py"
    script.write_text(SCRIPT.replace("TRAIN", repr(str(ROOT / "train.py"))))
    command = [str(script), "-m", *SMALL, "model=rnn,small", "runner.ntrials=2", "--config-dir", "mine"]
    done = program.run(command, folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_a_sweep_ends_with_one_table_of_all_models(sweep):
    folder, output = sweep
    [path] = (folder / "runs").glob("sweep_digits_rnn_*")
    rows = [line.split(" | ") for line in (path / "table.md").read_text().splitlines() if line]
    assert [row[1:3] for row in rows[2:4]] == [
        [f"rnn (smoke test, model.cell_args.hidden_size={size})", "2"] for size in (8, 3)
    ]
    assert (path / "curves.png").exists()
    assert len(list((folder / "runs").glob("digits_*/seed_*/record.json"))) == 4
    jobs = json.loads((path / "sweep.json").read_text())["jobs"]
    assert [(job["model"], job["seeds"], job["failure"]) for job in jobs] == [("rnn", [0, 1], None), ("rnn", [0, 1], None)]
    assert output.count("n trials") == 1


def test_a_sweep_names_its_best_row_and_the_command_that_trains_it(sweep):
    folder, output = sweep
    [line, command] = re.findall(r"best validation accuracy on digits: .*\n.*", output)[0].splitlines()
    [size] = re.findall(r"rnn \(smoke test, model.cell_args.hidden_size=(\d)\), 0\.\d{4} \+/- 0\.\d{4} \(n = 2\), in ", line)
    place = line.partition(", in ")[2].removesuffix(":")
    means = pd.read_csv(next((folder / "runs").glob("sweep_digits_rnn_*/table.csv"))).set_index("model")["val_mean"]
    assert means.max() == means[f"rnn (smoke test, model.cell_args.hidden_size={size})"]
    config = yaml.safe_load((folder / place / "seed_0" / "config.yaml").read_text())
    assert str(config["model"]["cell_args"]["hidden_size"]) == size
    model = {"8": "rnn", "3": "small"}[size]
    python, script, *arguments = shlex.split(command)
    assert python == "python"
    assert arguments[:2] == ["--config-dir", "mine"]
    assert " ".join(arguments[2:]).lower() == " ".join([*SMALL, f"model={model}", "runner.ntrials=2"])
    again = program.run([script, *arguments], folder)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count(f"found in {place}/seed_") == 2


def test_every_command_of_the_best_row_is_named(current, tmp_path):
    """Jobs that differ in their seeds alone are one row."""
    current().command = ["train.py", "-m", "seed=1,2", "model=gru,rnn"]
    commands = [[f"seed={seed}", f"model={model}"] for seed in (1, 2) for model in ("gru", "rnn")]
    jobs = [{"overrides": job, "folder": f"../{job[1]}"} for job in commands] + [{"overrides": ["seed=3"], "folder": None}]
    for job in commands:
        write_run(tmp_path / job[1] / job[0], configuration("gru", seed=int(job[0][-1])))
    [group] = results.group_trials(results.find_runs(tmp_path / "model=gru"))
    line, *named = sweeps._best(group, [group], tmp_path / "sweep", jobs).splitlines()
    assert line.endswith(f"(n = 2), in {tmp_path / 'model=gru'}:")
    assert named == ["python train.py seed=1 model=gru", "python train.py seed=2 model=gru"]


def test_rows_that_are_as_good_as_the_best_one_are_named(tmp_path):
    for model, test in (("legs", 0.9), ("gru", 0.9), ("lstm", 0.8)):
        write_trials(tmp_path, [test], model=model)
    groups = rows_of(tmp_path)
    [best] = results.best_by_validation(groups)
    assert "on digits: gru (equal: legs), 0." in sweeps._best(best, groups, tmp_path, [])


def test_lines_of_jobs_say_what_differs_between_them(sweep):
    _, output = sweep
    for title in ("rnn", "rnn (model=small)"):
        assert output.count(f"\n{title} on digits, seed 0, smoke test: epoch 1 of 1: validation accuracy ") == 1
        assert output.count(f"\n{title} on digits, trial 2 of 2 (seed 1): test accuracy ") == 1


def test_garbage_is_collected_as_usual_once_a_program_trains(sweep):
    _, output = sweep
    assert output.count("before: True\n") == 1
    assert output.count("while it trains: True True\n") == 4


def test_each_job_of_a_sweep_is_composed_to_check_it_and_to_train_it(sweep):
    _, output = sweep
    before, _, _ = output.partition("while it trains")
    once = 3  # for the sweeper's settings, and by Hydra twice
    assert before.count("composed\n") == 2 + 1 + once
    assert output.count("composed\n") == 2 + 2 + once


def test_a_job_that_fails_before_its_first_trial_is_named_at_the_end(tmp_path):
    """The mistake shows only where model and data meet. A report that cannot be written is named as well."""
    command = ("-m", *SMALL, "model=rnn,seq2seq_ae")
    done = run(*command, cwd=tmp_path)
    assert done.returncode == 2
    first, *at_the_end = done.stderr.splitlines()
    assert first.startswith("error: job 1 (")
    assert at_the_end[0] == "error: 1 of 2 jobs failed"
    assert "seq2seq_ae" in at_the_end[1]
    assert "1 missing" in done.stdout
    [manifest] = (tmp_path / "runs").glob("sweep_*/sweep.json")
    assert [bool(job["failure"]) for job in json.loads(manifest.read_text())["jobs"]] == [False, True]
    table = manifest.with_name("table.txt")
    table.unlink()
    table.mkdir()
    again = run(*command, cwd=tmp_path)
    assert again.returncode == 2
    assert "error: 1 of 2 jobs failed" in again.stderr
    assert re.search(r"error: cannot write \S+/table.txt \(Is a directory\)", again.stderr)


def test_jobs_that_fail_alike_are_named_under_one_line(tmp_path, monkeypatch, capsys):
    failures = {"model=gru": "no label", "model=rnn": "no label", "model=tcn": "too long", "model=lstm": None}
    jobs = [{"failure": failure, "status": 2, "overrides": [model]} for model, failure in failures.items()]
    monkeypatch.setattr("seqmem.results.Sweep", lambda folder: SimpleNamespace(jobs=lambda: jobs))
    monkeypatch.setattr("seqmem.results.find_runs", lambda folder: [])
    monkeypatch.setattr(sweeps, "current", sweeps._Current(folder=tmp_path))
    sweeps.report_sweep()
    assert capsys.readouterr().err.splitlines() == [
        "error: 3 of 4 jobs failed", "error: 2 jobs: no label", "  model=gru", "  model=rnn", "error: model=tcn: too long"
    ]  # fmt: skip


def test_a_job_that_fails_does_not_stop_the_sweep(tmp_path):
    """A learning rate that makes the loss infinite fails its job alone; the table counts it, and the status says so."""
    small = ("dataset=digits", "model=rnn", "model.preset=tiny", "train.epochs=2", "train.optimizer=sgd")
    done = run(*small, "model.cell_args.hidden_activation=relu", "train.lr=1e30,0.01", "-m", cwd=tmp_path)
    assert done.returncode == 2
    at_once, *at_the_end = done.stderr.splitlines()
    assert at_once.startswith("error: job 0 (")
    assert at_the_end[0] == "error: 1 of 2 jobs failed"
    assert at_the_end[1].startswith(
        f"error: {' '.join(small)} model.cell_args.hidden_activation=relu train.lr=1e+30: the training loss"
    )
    [sweep] = (tmp_path / "runs").glob("sweep_*")
    lines = (sweep / "table.md").read_text().splitlines()
    header, _, *rows = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    assert header[3].strip() == "not finished"
    assert sorted((row[2].strip(), row[3].strip()) for row in rows) == [("0", "1 failed"), ("1", "-")]
    records = (tmp_path / "runs").glob("*/seed_0/record.json")
    assert sorted(json.loads(path.read_text())["status"] for path in records) == ["failed", "finished"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("seed=range(1000000000)", "-m: got over 10,000 jobs, expected at most 10,000"),
        ("seed=range(101) train.lr=range(1,101)", "-m: got over 10,000 jobs, expected at most 10,000"),
        ("train.lr=interval(0.1,1)", "train.lr: got an interval, expected values; hydra/sweeper=optuna"),
        ("train.lr=0.1,fast", "train.lr: got 'fast', expected a valid number"),
        ("model=rnn,lstmm", "model: got lstmm, expected the name of a file in cfg/model/; did you mean 'lstm'?"),
        ("runner.devices=2 seed=1,2", "runner.devices: got 2 with -m, expected 1"),
        (
            "dataset=mnist dataset.data_dir=a,b",
            "-m: got dataset.data_dir=a and dataset.data_dir=b, which have the same settings and seeds",
        ),
    ],
)
def test_a_sweep_is_refused_before_its_first_job(values, message):
    with pytest.raises(UserError, match=re.escape(message)):
        plan.plan(["dataset=digits", "model=rnn", *values.split()], [])


@pytest.fixture
def current(monkeypatch):
    """No sweep yet; a function that returns the planned one."""
    monkeypatch.setenv("SEQMEM_SWEEP", "")
    monkeypatch.setattr(sweeps, "current", sweeps._Current())
    return lambda: sweeps.current


def planned(*arguments):
    """The arguments that Hydra gets for a command line."""
    return running.check(overrides.translate(arguments))[0]


def test_a_key_that_the_swept_choices_alone_have_is_planned(current):
    for arguments in (
        ("dataset=copying,adding", "dataset.length=30", "model=gru"),
        ("experiment=hippo/ct_100to200_legs,hippo/ct_100to200_lstm", "dataset.train_hz=0.4"),
    ):
        given = planned("-m", *arguments)
        assert given[:2] == ["-m", "hydra.mode=MULTIRUN"]
        assert len(current().batch) == 2
        assert set(current().batch[0]) == set(given[2:])
        assert current().overrides == list(arguments)
        commandline.compose(given[2:])
    with pytest.raises(UserError, match=r"dataset.length: no such key of dataset=mnist; dataset=adding, "):
        planned("-m", "dataset=copying,mnist", "dataset.length=30", "model=gru")


EXPERIMENTS = {
    "own_one": "hydra: {mode: MULTIRUN, sweeper: {params: {model.cell: 'lstm,gru', seed: 3}}}",
    "own_two": "hydra: {sweeper: {params: {train.optimizer_args.eps: '1e-8,1e-7', model: glob(rn*)}}}",
}


def test_experiments_request_sweeps_and_bring_parameters(current, tmp_path):
    """Parameters of a file may be spelled as on the command line, and each experiment has its own."""
    (tmp_path / "experiment").mkdir()
    for name, text in EXPERIMENTS.items():
        (tmp_path / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\n{text}\n")
    own = ("--config-dir", str(tmp_path))
    one = [["experiment=own_one", f"model={model}", "dataset=digits"] for model in ("lstm", "gru")]
    two = [
        ["experiment=own_two", f"++train.optimizer_args.eps={eps}", "model=rnn", "dataset=digits"] for eps in ("1e-08", "1e-07")
    ]
    given = planned(*own, "experiment=own_one", "dataset=digits", "seed=1,2")
    assert given[2:4] == ["-m", "hydra.mode=MULTIRUN"]
    assert (current().swept, current().alone) == (["seed", "model"], ["hydra.mode=RUN"])
    assert sorted(current().batch) == sorted(
        [model, "experiment=own_one", "dataset=digits", seed]
        for model in ("model=lstm", "model=gru")
        for seed in ("seed=1", "seed=2")
    )
    planned("-m", *own, "experiment=glob(own_*)", "dataset=digits", "hydra.mode=RUN")
    found = [sorted(job) for job in current().batch]
    assert list(map(sorted, two)) == [job for job in found if "experiment=own_two" in job]
    assert [sorted([*job, "seed=3"]) for job in one] == [job for job in found if "experiment=own_one" in job]
    assert planned(*own, "experiment=own_one", "hydra.mode=RUN") == [*own, "experiment=own_one", "hydra.mode=RUN"]


def test_a_sweep_that_the_mode_requests_has_a_folder_of_its_own(tmp_path):
    """As with -m: the jobs are checked beforehand, and two sweeps do not share a manifest."""
    common = (*SMALL, "hydra.mode=MULTIRUN")
    refused = run(*common, "train.lr=0.1,fast", cwd=tmp_path)
    assert refused.stderr == "error: train.lr: got 'fast', expected a valid number\n"
    for values in ("model=gru seed=1,2", "model=gru,rnn"):
        done = run(*common, *values.split(), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    tables = [pd.read_csv(path) for path in sorted((tmp_path / "runs").glob("sweep_*/table.csv"))]
    found = sorted(([model.split()[0] for model in table["model"]], list(table["n"])) for table in tables)
    assert found == [(["gru"], [2]), (["gru", "rnn"], [1, 1])]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("hydra.sweeper.params=3", "hydra.sweeper.params: got 3, expected KEY: VALUES pairs"),
        ("hydra.sweeper.max_batch_size=1,2", "hydra.sweeper.max_batch_size: got several values, expected one"),
        ("hydra.launcher=3", "hydra.launcher: got 3, expected a section; hydra/launcher=NAME selects one"),
        ("seed=range(3,1)", "seed: got range(3,1), which has no value"),
        ("seed=range(1,2,0)", "seed: got range(1,2,0), which gives no values"),
        ("hydra.sweeper.max_batch_size=0", "hydra.sweeper.max_batch_size: got 0, expected at least 1"),
    ],
)
def test_settings_of_a_sweep_are_refused_by_name(arguments, message, current):
    with pytest.raises(UserError, match=re.escape(message)):
        planned("-m", "dataset=digits", "model=rnn", *arguments.split())


def test_a_sweep_whose_folder_cannot_be_made_names_the_reason(current, tmp_path, monkeypatch, capsys):
    """The report at the end finds no folder, and keeps that to itself."""

    def main():
        current().folder = tmp_path / "closed" / "sweep"
        raise OSError(30, "Read-only file system", "closed")

    monkeypatch.setenv("HYDRA_FULL_ERROR", "")
    monkeypatch.setattr("sys.argv", ["train.py", "-m", "dataset=digits", "model=rnn"])
    with pytest.raises(SystemExit) as ended:
        running._run(main)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: closed: Read-only file system\n"


def section(**values):
    launcher = {"_target_": values.pop("launcher", "hydra._internal.core_plugins.basic_launcher.BasicLauncher"), "n_jobs": 0}
    sweeper = {"_target_": "hydra_plugins.seqmem_optuna_sweeper.OptunaSweeper", "n_trials": 1, **values}
    return OmegaConf.create({"launcher": launcher, "sweeper": sweeper, "runtime": {"choices": {"hydra/sweeper": "optuna"}}})


def test_settings_of_launchers_and_searches_are_refused_by_name(tmp_path, monkeypatch):
    """Neither plugin needs to be installed for that."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(settings, "require_optuna", lambda: None)
    launcher = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"
    for values, message in (
        ({"launcher": launcher}, "hydra/launcher: got submitit_slurm, but this machine has no srun"),
        ({"launcher": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"}, "hydra.launcher.n_jobs: got 0"),
        ({"n_trials": 0}, "hydra.sweeper.n_trials: got 0, expected greater than 0"),
        ({"direction": "maximise"}, "hydra.sweeper.direction: got 'maximise', expected 'minimize' or 'maximize'; did you"),
        ({"direction": ["minimize", "maximize"]}, "hydra.sweeper.direction: got ['minimize', 'maximize'], expected"),
        (
            {"storage": "sqlite:///nowhere/lr.db"},
            "got sqlite:///nowhere/lr.db, expected a file in a folder",
        ),
        ({"storage": f"sqlite:///{tmp_path}"}, "expected a file, which"),
        ({"storage": "lr.db"}, "hydra.sweeper.storage: got lr.db, expected a URL such as sqlite:///lr.db"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            engines.check(section(**values))
    engines.check(section(direction="maximize", storage=f"sqlite:///{tmp_path}/lr.db"))
    engines.check(section(direction=["minimize"], storage="sqlite://"))


def test_an_error_of_a_plugin_names_the_plugin():
    with pytest.raises(UserError, match="hydra/sweeper=optuna: RuntimeError: no"), engines.named_errors(section()):
        raise RuntimeError("no")
    with pytest.raises(UserError, match=r"hydra\.verbose=3: AssertionError"), engines.named_errors(None, ["hydra.verbose=3"]):
        raise AssertionError
    with pytest.raises(RuntimeError), engines.named_errors(None):
        raise RuntimeError("a bug")


def test_without_assert_statements_hydra_cannot_read_functions(tmp_path):
    command = [sys.executable, "-O", str(ROOT / "train.py"), "-m", "dataset=digits", "seed=range(3)"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: seed: got range(3), which Hydra cannot read under PYTHONOPTIMIZE")
    assert done.stderr.count("\n") == 1


def test_a_search_checks_each_choice_once():
    choices = [["a=1"], ["b=1", "b=2", "b=3"], ["c=1", "c=2"]]
    jobs = list(plan._one_at_a_time(choices))
    assert jobs == [["a=1", "b=1", "c=1"], ["a=1", "b=2", "c=1"], ["a=1", "b=3", "c=1"], ["a=1", "b=1", "c=2"]]


def test_the_sweeper_is_a_plugin_and_hydra_is_left_alone(monkeypatch):
    monkeypatch.setenv("SEQMEM_SWEEP", "")
    monkeypatch.setattr(sweeps, "current", sweeps._Current())
    plan.plan(["dataset=digits", "model=rnn,gru"], [])
    assert Plugins.instance().class_name_to_class["hydra_plugins.seqmem_sweeper.PlannedSweeper"]
    assert "validate_batch_is_legal" not in vars(BasicSweeper)
    assert Sweeper.validate_batch_is_legal.__module__ == "hydra.plugins.sweeper"


def table(folder):
    [path] = folder.glob("runs/sweep_*/table.csv")
    return pd.read_csv(path).drop(columns=TIMED)


@pytest.mark.slow
def test_a_sweep_killed_twenty_times_gives_the_table_of_one_that_was_not(tmp_path):
    command = [
        "train.py",
        "-m",
        "dataset=digits",
        "model=rnn,lstm,legs",
        "model.preset=tiny",
        "runner.ntrials=2",
        "train.epochs=60",
    ]
    command += ["train.limit_train_batches=4", "train.limit_val_batches=2", "train.limit_test_batches=2"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    begun = time.monotonic()
    done = program.run(command, whole)
    lasted = time.monotonic() - begun
    assert done.returncode == 0, done.stderr
    chance = random.Random(0)
    finished, kills = {}, 0
    while kills < 20:
        try:
            program.run(command, killed, timeout=chance.uniform(0.05, 0.3) * lasted)
        except subprocess.TimeoutExpired:
            kills += 1
        else:  # all trials have finished: start again in an empty folder
            killed.rename(tmp_path / f"finished_{len(list(tmp_path.glob('finished_*')))}")
            killed.mkdir()
            finished.clear()
        for path in killed.glob("runs/*/seed_*/record.json"):
            if json.loads(path.read_text())["status"] == "finished":
                finished.setdefault(path, path.stat().st_mtime_ns)
    done = program.run(command, killed)
    assert done.returncode == 0, done.stderr
    for folder in (killed, *tmp_path.glob("finished_*")):
        pd.testing.assert_frame_equal(table(whole), table(folder))
    assert all(path.stat().st_mtime_ns == before for path, before in finished.items())
    assert len(list(killed.glob("runs/*/seed_*/record.json"))) == 6
    for path in whole.glob("runs/*/seed_*/metrics.csv"):
        assert len(pd.read_csv(path)) == len(pd.read_csv(killed / path.relative_to(whole))) == 60
