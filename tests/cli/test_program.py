"""``seqmem.train`` and ``seqmem.load``: the trial of the command line from Python, and its model."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import seqmem
from seqmem import datasets
from seqmem.cli import program
from seqmem.errors import UserError
from seqmem.models import SequenceModel
from seqmem.results.record import RunFolder
from tests import program as commands

SMALL = "dataset=digits model=gru model.preset=tiny train.epochs=2 train.limit_train_batches=2 train.lr=0.01 seed=3"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a trial in float64."""
    folder = tmp_path_factory.mktemp("runs")
    more = "train.precision=64-true runner.accelerator=cpu"
    [trial] = seqmem.train(f"{SMALL} {more} output_dir={folder}")
    return trial


def test_the_trial_is_that_of_the_command_line(tmp_path, capsys):
    argv = list(sys.argv)
    [trial] = seqmem.train(
        dataset="digits",
        model="gru",
        train={"epochs": 2, "limit_train_batches": 2, "lr": 0.01, "optimizer_args": {"betas": (0.9, 0.99)}},
        seed=np.int64(3),
        output_dir=tmp_path / "runs",
        **{"model.preset": "tiny"},
    )
    assert sys.argv == argv
    assert "gru on digits, trial 1 of 1 (seed 3): test accuracy" in capsys.readouterr().out
    arguments = [*SMALL.split(), "train.optimizer_args.betas=[0.9,0.99]", f"output_dir={tmp_path}/runs"]
    done = commands.run(["train.py", *arguments], tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"found in {trial.path}" in done.stdout  # the same settings, code and data
    assert {path.name for path in trial.path.parent.iterdir()} >= {"table.md", "table.csv", "curves.png", "seed_3"}
    again = RunFolder(trial.path).read_record()["command"]
    assert again[0] == "train.py"
    done = commands.run(["train.py", *again[1:], "train.resume=null"], tmp_path)  # the record's command trains the same
    assert f"found in {trial.path}" in done.stdout


def test_a_list_and_a_string_are_the_same(tmp_path):
    given = [*SMALL.split(), f"output_dir={tmp_path}"]
    first = seqmem.train(given, runner={"ntrials": 2})
    again = seqmem.train(" ".join(given), **{"runner.ntrials": 2})
    assert [trial.path.name for trial in first] == ["seed_3", "seed_4"]
    assert [trial.path for trial in again] == [trial.path for trial in first]


def test_the_model_of_a_trial(trained):
    model = seqmem.load(trained.path)
    assert isinstance(model, SequenceModel)
    assert not model.training
    assert model.spec == datasets.load(trained.read_config()["dataset"]).spec
    assert {value.dtype for value in model.parameters()} == {torch.float64}
    for name, given in (("best.ckpt", trained.path), ("last.ckpt", str(trained.checkpoints / "last.ckpt"))):
        saved = torch.load(trained.checkpoints / name, weights_only=True)["state_dict"]
        for key, value in seqmem.load(given).state_dict().items():
            assert torch.equal(value, saved[f"model.{key}"]), key


@torch.no_grad()
def test_it_predicts_what_was_recorded(trained):
    data, model = datasets.load(trained.read_config()["dataset"]), seqmem.load(trained.path)
    batch = data.batch("test", torch.arange(data.sizes["test"]))
    accuracy = (model.predict(batch.inputs).argmax(-1) == batch.targets).double().mean().item()
    assert accuracy == pytest.approx(trained.read_record()["result"]["test/accuracy"], abs=1e-6)
    assert torch.equal(model.predict(batch.inputs.numpy()), model(batch.__class__(batch.inputs.double(), batch.targets)))
    padded = torch.cat([batch.inputs[:3, :9], torch.full((3, 2, 1), torch.nan)], 1)
    torch.testing.assert_close(model.predict(padded, lengths=[9, 9, 9]), model.predict(batch.inputs[:3, :9]))


WRONG = {
    "dataset=digit": "dataset: got digit, expected the name of a file in cfg/dataset/; did you mean 'digits'",
    "model.cell_arg=1": "model.cell_arg: no such key",
    "-m model=gru,lstm": "seqmem.train: got -m, expected KEY=VALUE",
    "--cfg job": "seqmem.train: got --cfg, expected KEY=VALUE",
    "hydra/launcher=joblib": "seqmem.train: got hydra/launcher=joblib, expected a key of the config; seqmem train runs sweeps",
    "hydra.mode=MULTIRUN seed=1,2": "seqmem.train: got hydra.mode=MULTIRUN, expected a key",
    "++hydra.sweeper.n_trials=3": r"seqmem.train: got \+\+hydra.sweeper.n_trials=3, expected a key",
}


def test_mistakes_are_errors_not_exits(tmp_path):
    for given, message in WRONG.items():
        with pytest.raises(UserError, match=message):
            seqmem.train(f"output_dir={tmp_path} {given}")
    with pytest.raises(UserError, match=r"train.lr: got <object .*>, expected a number"):
        seqmem.train(train={"lr": object()})
    with pytest.raises(UserError, match="expected a checkpoint or the folder of a finished trial"):
        seqmem.load(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_requests_a_sweep_is_refused_unless_one_job_is_requested(tmp_path, monkeypatch):
    (tmp_path / "experiment").mkdir()
    text = '# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: "1,2"}}}\n'
    (tmp_path / "experiment" / "several.yaml").write_text(text)
    given = ["--config-dir", str(tmp_path), "experiment=several", "dataset=digits", f"output_dir={tmp_path / 'runs'}"]
    monkeypatch.setattr(program.jobs, "reported", lambda *_, **__: (_ for _ in ()).throw(KeyError))
    with pytest.raises(
        UserError, match=r"seqmem\.train: got a file that requests a sweep, expected one job; seqmem train runs sweeps"
    ):
        seqmem.train(given)
    with pytest.raises(KeyError):
        seqmem.train([*given, "hydra.mode=RUN"])


@pytest.mark.parametrize("value", [None, True, 3, -1.5e-7, "it's a b\\c, d=e", [1, "x"], {"a": [True, None]}, Path("a b/c")])
def test_values_arrive_as_they_are(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    [written] = program._written({"key": [value]})
    parsed = OverridesParser.create().parse_override(written).value()
    expected = str(value) if isinstance(value, Path) else value
    assert OmegaConf.to_container(OmegaConf.create({"key": parsed}))["key"] == [expected]


def test_the_package_stays_light_and_knows_the_names():
    code = (
        "import seqmem, sys; assert {'train', 'load'} <= set(dir(seqmem)); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'hydra', 'pytorch_lightning', 'seqmem.cli')))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(seqmem.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False, env=environment).returncode == 0


def test_the_config_is_that_of_the_command_line(tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(program.commandline, "compose", lambda arguments: found.append(arguments) or {})
    monkeypatch.setattr(program.jobs, "reported", lambda *_, **__: (_ for _ in ()).throw(KeyError))
    with pytest.raises(KeyError):
        seqmem.train("model.cell=legs", dataset="ct", model={"cell_args": {"hidden_size": 3}})
    assert sorted(found[0]) == ["dataset=ct", "model.cell_args.hidden_size=3", "model=legs"]
