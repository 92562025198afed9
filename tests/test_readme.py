"""The README's commands run as they stand, made small; its Python runs too."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from seqmem.cli import commandline
from tests import program
from tests.data_files import require
from tests.engines import commands as engines
from tests.results.synthetic import configuration, write_run

_root = Path(__file__).parents[1]
_readme = (_root / "README.md").read_text()

# What a command needs beside the ordinary install, by a word that it holds.
_engines = {
    "hydra/launcher=joblib": (lambda: _plugin("hydra_joblib_launcher"), "hydra-joblib-launcher is not installed"),
    "hydra/launcher=submitit_local": (lambda: _plugin("hydra_submitit_launcher"), "hydra-submitit-launcher is not installed"),
    "hydra/launcher=submitit_slurm": (lambda: shutil.which("sbatch"), "there is no Slurm cluster here"),
    "hydra/sweeper=optuna": (lambda: _plugin("hydra_optuna_sweeper"), "hydra-optuna-sweeper is not installed"),
    "runner=ray": (lambda: find_spec("ray"), "ray is not installed"),
    "runner.wandb": (lambda: find_spec("wandb"), "wandb is not installed"),
    "runner.devices": (lambda: True, ""),
}


def _plugin(name):
    return find_spec("hydra_plugins") and find_spec(f"hydra_plugins.{name}")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", _readme, re.DOTALL)


def commands():
    text = "\n".join(blocks("bash")).replace("\\\n", " ")
    return [" ".join(line.split("#")[0].split()) for line in text.splitlines() if line.split("#")[0].strip()]


def starting_with(*words):
    return [command for command in commands() if command.split()[: len(words)] == list(words)]


def trainings():
    """Its training commands, those that start workers as tests that take ``--run-cluster`` and what the command needs."""
    for command in commands():
        environment, python, arguments = command.partition("python train.py")
        if not python or environment not in ("", "OMP_NUM_THREADS=1 "):
            continue
        marks = []
        for word, (there, reason) in _engines.items():
            if word in arguments:
                marks += [pytest.mark.cluster, pytest.mark.skipif(not there(), reason=reason)]
        yield pytest.param(python + arguments, marks=marks)


def test_every_command_is_of_a_kind_that_is_tested_here():
    kinds = (
        "python train.py",
        "OMP_NUM_THREADS=1 python train.py",
        "python -m seqmem.boundaries",
        "python evaluate.py",
        "python -m seqmem",
        "python tests/",
        "make ",
        "pytest ",
        "pip install ",
        "cd ",
        ". .venv",
        "git ",
    )
    assert [command for command in commands() if not command.startswith(kinds)] == []
    assert len(starting_with("python", "train.py")) >= 5


@pytest.mark.parametrize("command", list(trainings()))
def test_train_commands(command, tmp_path, request):
    arguments = shlex.split(command)[2:]
    shown_only = {"--help", "--cfg"} & set(arguments)
    if not shown_only:
        small = ["smoke_test=True", f"output_dir={tmp_path}/runs", "runner.ntrials=1", "train.batch_size=8"]
        small += ["hydra.sweeper.n_trials=2"] * ("hydra/sweeper=optuna" in arguments)
        sweep = {"-m", "--multirun"} & set(arguments)
        config = {} if sweep else commandline.compose(arguments)
        name = config.get("dataset", {}).get("name")
        require(name)
        if "data_dir" in config.get("dataset", {}):
            small.append(f"dataset.data_dir={Path(os.environ.get('SEQMEM_DATA', 'data')).resolve()}")
        replaced = {key.partition("=")[0] for key in small}
        arguments = [argument for argument in arguments if argument.partition("=")[0] not in replaced] + small
    if request.node.get_closest_marker("cluster"):  # workers need a process of their own to start from
        done = engines.run(*arguments, cwd=tmp_path)
    else:
        done = program.run(["train.py", *arguments], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    if not shown_only:
        assert re.search("test (accuracy|mse|bpc)", done.stdout)
        assert list(tmp_path.glob("runs/**/record.json"))
        assert list(tmp_path.glob("runs/**/table.md"))


@pytest.fixture(scope="module")
def small_trial(tmp_path_factory):
    """The folder of a finished trial that finds boundaries."""
    folder = tmp_path_factory.mktemp("trial")
    arguments = ("dataset=sinusoids", "dataset.length=30", "model=hmlstm", "model.preset=tiny", "smoke_test=True")
    done = program.run(["train.py", *arguments], folder)
    assert done.returncode == 0, done.stderr
    [trial] = folder.glob("runs/*/seed_0")
    return trial


@pytest.mark.parametrize("command", starting_with("python", "-m", "seqmem.boundaries"))
def test_boundaries_commands(command, small_trial, tmp_path):
    _, script, _, *keys = shlex.split(command)
    done = program.run([script, str(small_trial), *keys], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "boundary rates: layer 1 " in done.stdout


@pytest.mark.parametrize("command", starting_with("python", "evaluate.py"))
def test_evaluate_commands(command, small_trial, tmp_path):
    _, script, _, *keys = shlex.split(command)
    done = program.run([script, str(small_trial), *keys], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "the record of this evaluation is" in done.stdout


@pytest.mark.parametrize("command", starting_with("python", "-m", "seqmem.export"))
def test_export_commands(command, small_trial, tmp_path):
    words = [str(small_trial) if word.startswith("runs/") else word for word in shlex.split(command)[1:]]
    done = program.run(words, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "greatest difference from the model on fresh inputs: " in done.stdout


@pytest.mark.parametrize("command", [c for c in starting_with("python", "-m") if "seqmem.export" not in c])
def test_module_commands(command, tmp_path):
    (tmp_path / "series.csv").write_text("".join(f"{k},{k + 1},{2 * k}\n" for k in range(8)))
    (tmp_path / "published.csv").write_text("task,model,metric,value\ndigits,legs,test accuracy (%),96.2\n")
    write_run(tmp_path / "runs" / "seed_0", configuration())
    done = program.run(shlex.split(command)[1:], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("command", starting_with("make"))
def test_make_targets_exist(command):
    done = subprocess.run(
        [*shlex.split(command), "--dry-run"], capture_output=True, text=True, timeout=60, cwd=_root, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", starting_with("pytest") + starting_with("python", "tests/test_legs_extension.py"))
def test_files_of_test_commands_exist(command):
    for word in shlex.split(command):
        if word.startswith("tests/"):
            assert (_root / word).exists()


@pytest.mark.slow
@pytest.mark.parametrize("command", starting_with("cd"))
def test_the_originals_way_to_build_works(command, tmp_path):
    """In a copy, so that the library of this checkout is left alone."""
    assert command == "cd csrc && python setup.py install"
    for name in ("csrc", "src"):
        shutil.copytree(_root / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "build", "*.egg-info"))
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(_root / name, tmp_path)
    build = [sys.executable, "setup.py", "install"]
    done = subprocess.run(build, capture_output=True, text=True, timeout=580, cwd=tmp_path / "csrc", check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "src/seqmem/ops/_extension.so").exists()


def test_python_blocks_run(tmp_path):
    """Each with names of its own; what they import is imported once."""
    assert blocks("python")
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            "import json, sys\nfor block in json.load(sys.stdin): exec(block, {'__name__': 'block'})",
        ],
        input=json.dumps(blocks("python")),
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(_root)},
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_cell_and_the_data_set_of_the_readme_train(tmp_path):
    """Its blocks, put where it says into a copy of the checkout, run by one command."""
    for name in ("cfg", "datasets", "src"):
        shutil.copytree(_root / name, tmp_path / name)
    shutil.copy(_root / "train.py", tmp_path)
    [cell] = [block for block in blocks("python") if "class Leaky" in block]
    [data] = [block for block in blocks("python") if "class Parity" in block]
    (tmp_path / "src/seqmem/cells/leaky.py").write_text(
        cell.replace("from seqmem.cells import", "from seqmem.cells.base import")
    )
    (tmp_path / "datasets/parity.py").write_text(data)
    (tmp_path / "cfg/model/leaky.yaml").write_text(blocks("yaml")[0])
    (tmp_path / "cfg/dataset/parity.yaml").write_text("name: parity\nlength: 50\nnum_workers: 0\n")
    done = subprocess.run(
        [sys.executable, "train.py", "model=leaky", "dataset=parity", "model.preset=tiny", "smoke_test=True"],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "leaky on parity, trial 1 of 1" in done.stdout


def test_files_that_the_readme_names_exist():
    for name in re.findall(r"\]\(([^)#]+)\)", _readme):
        if not name.startswith("http"):
            assert (_root / name).exists(), name
    for name in re.findall(r"`((?:cfg|src|csrc|datasets|tests|benchmarks)/[\w./-]+)`", _readme):
        if "NAME" not in name and "leaky" not in name:
            assert (_root / name).exists(), name
