"""The README's commands compose and, made small, run as they stand; its Python runs too."""

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import readme
from seqmem import datasets
from seqmem.cli import boundaries, commandline, evaluate, overrides, plan, sweeps
from tests import program
from tests.data_files import require
from tests.engines import commands as engines
from tests.results.synthetic import configuration, write_run
from tests.trials import run_trials

_root = program.ROOT
_readme = (_root / "README.md").read_text()

# Requirements of a command in addition to the ordinary install, by a word in the command.
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


# Trainings of the ordinary run: the original's, a text, an autoencoder. test_sweeps.py and test_experiments.py have others.
_representative = ("runner=pl runner.ntrials=3 dataset=ct", "dataset=text8 model=lstm", "dataset=moving_digits")


def trainings():
    """Its training commands: some slow, and those that start workers as tests that take ``--run-cluster``."""
    for command in commands():
        environment, python, arguments = command.partition("python train.py ")
        if not python or environment not in ("", "OMP_NUM_THREADS=1 "):
            continue
        marks = [] if arguments.startswith(_representative) else [pytest.mark.slow]
        for word, (there, reason) in _engines.items():
            if word in arguments:
                marks = [pytest.mark.cluster, pytest.mark.skipif(not there(), reason=reason)]
        yield pytest.param(python + arguments, marks=marks, id=arguments[:60])


def test_every_command_is_of_a_kind_that_is_tested_here():
    kinds = (
        "python train.py",
        "OMP_NUM_THREADS=1 python train.py",
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
    assert len(list(trainings())) >= 20


def test_every_train_command_composes(monkeypatch):
    monkeypatch.setattr(sweeps, "current", sweeps._Current())
    monkeypatch.setenv("SEQMEM_SWEEP", "")
    for parameter in trainings():
        [command] = parameter.values
        if any(word in command for word in ("hydra/launcher", "hydra/sweeper", "runner=ray", "runner.wandb")):
            continue  # what is not installed cannot be composed
        flags, changes = overrides.split_flags(overrides.translate(shlex.split(command)[2:]))
        if overrides.is_multirun(flags):
            plan.plan(changes, [])
        else:
            commandline.compose(changes)


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
    arguments = ("dataset=sinusoids", "dataset.length=30", "model=hmlstm", "model.preset=tiny", "smoke_test=True")
    config = commandline.compose([*arguments, "runner.accelerator=cpu"])
    [trial] = run_trials(config, datasets.load(config["dataset"]), tmp_path_factory.mktemp("runs"))
    return trial.path


def test_commands_about_a_finished_trial(small_trial, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for words, module, line in (
        (("python", "-m", "seqmem.boundaries"), boundaries, "boundary rates: layer 1 "),
        (("python", "evaluate.py"), evaluate, "record of this evaluation: "),
    ):
        assert starting_with(*words)
        for command in starting_with(*words):
            keys = shlex.split(command)[len(words) + 1 :]
            monkeypatch.setattr("sys.argv", [words[-1], str(small_trial), *keys])
            module.main()
            assert line in capsys.readouterr().out, command


@pytest.mark.slow
@pytest.mark.parametrize("command", starting_with("python", "-m", "seqmem.export"))
def test_export_commands(command, small_trial, tmp_path):
    words = [str(small_trial) if word.startswith("runs/") else word for word in shlex.split(command)[1:]]
    done = program.run(words, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "greatest difference from the model on random inputs: " in done.stdout


@pytest.mark.parametrize(
    "command",
    [command for command in starting_with("python", "-m") if not re.search(r"seqmem\.(export|boundaries)", command)],
)
def test_module_commands(command, tmp_path):
    (tmp_path / "series.csv").write_text("".join(f"{k},{k + 1},{2 * k}\n" for k in range(8)))
    (tmp_path / "published.csv").write_text("task,model,metric,value\ndigits,legs,test accuracy (%),96.2\n")
    write_run(tmp_path / "runs" / "seed_0", configuration())
    done = program.run(shlex.split(command)[1:], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_make_targets_and_files_of_test_commands_exist():
    for command in starting_with("make"):
        dry = [*shlex.split(command), "--dry-run"]
        done = subprocess.run(dry, capture_output=True, text=True, timeout=60, cwd=_root, check=False)
        assert done.returncode == 0, done.stderr
    for command in starting_with("pytest") + starting_with("python", "tests/test_legs_extension.py"):
        for word in shlex.split(command):
            assert not word.startswith("tests/") or (_root / word).exists(), word


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
    done = subprocess.run(build, capture_output=True, text=True, timeout=1800, cwd=tmp_path / "csrc", check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "src/seqmem/ops/_extension.so").exists()


def test_python_blocks_run(tmp_path):
    """Each with names of its own; what they import is imported once."""
    assert blocks("python")
    script = tmp_path / "blocks.py"
    lines = (
        "import warnings",
        "warnings.simplefilter('error')",
        "for block in BLOCKS:",
        "    exec(block, {'__name__': 'block'})",
    )
    script.write_text("\n".join(lines).replace("BLOCKS", repr(blocks("python"))))
    done = program.run([str(script)], tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_cell_the_layer_and_the_data_set_of_the_readme_train(tmp_path):
    """Its blocks, put into a copy of the checkout, are trained in a process of its own, which imports everything itself.

    The process has no warning to show, no progress bar in a pipe, and imports pandas only once there is a table to write. Then
    it runs the batteries that README names.
    """
    program.copy_checkout(tmp_path, "tests/cells", "tests/layers")
    batteries = re.findall(r"`(pytest tests/(?:cells|layers)/test_battery\.py -k \w+)`", " ".join(_readme.split()))
    assert [command.split()[-1] for command in batteries] == ["leaky", "decay"]
    [cell] = [block for block in blocks("python") if "class Leaky" in block]
    [layer] = [block for block in blocks("python") if "class Decay" in block]
    [data] = [block for block in blocks("python") if "class Parity" in block]
    (tmp_path / "src/seqmem/cells/leaky.py").write_text(
        cell.replace("from seqmem.cells import", "from seqmem.cells.base import")
    )
    (tmp_path / "src/seqmem/layers/decay.py").write_text(layer)
    (tmp_path / "datasets/parity.py").write_text(data)
    for name, block in zip(("model/leaky", "model/decay", "dataset/parity"), blocks("yaml"), strict=True):
        (tmp_path / f"cfg/{name}.yaml").write_text(block)
    code = (
        "import runpy, sys, seqmem.training.loop.trial, seqmem.results; sys.argv = sys.argv[1:]; "
        "assert 'pandas' not in sys.modules; runpy.run_path(sys.argv[0], run_name='__main__'); "
        "import pytest; sys.path.insert(0, '.'); "
        f"sys.exit(max(pytest.main(['-n', '0', '--assert=plain', *words.split()[1:]]) for words in {batteries}))"
    )
    arguments = ["-m", "model=leaky,decay", "dataset=parity", "model.preset=tiny", "smoke_test=True", "runner.ntrials=2"]
    done = program.run_in_copy(tmp_path, "-c", code, "train.py", *arguments)
    assert done.stderr == ""
    assert done.returncode == 0, done.stdout
    assert len(re.findall(r"\d+ passed", done.stdout)) == len(batteries)
    for name in ("leaky", "decay"):
        assert f"{name} on parity, trial 2 of 2 (seed 1): test accuracy 0." in done.stdout
    assert "\r" not in done.stdout
    assert "\x1b" not in done.stdout


def test_the_measured_tables_are_those_of_the_results(monkeypatch):
    """A case without rows is an error; until it is measured, the README has no row of it either."""
    measured = {row["case"] for row in csv.DictReader((_root / "benchmarks/results/speed.csv").read_text().splitlines())}
    cases = {name: case for name, case in readme.SPEED.items() if case.title in measured}
    assert all(case.flush for name, case in readme.SPEED.items() if name not in cases)
    monkeypatch.setattr(readme, "SPEED", cases)
    assert readme.updated(_readme) == _readme, "python -m benchmarks.readme updates the README"
    for table in (readme.quickstart(), readme.speed(), readme.hmlstm()):
        assert table in _readme
        assert len(table.splitlines()) >= 5


def test_files_that_the_readme_names_exist():
    for name in re.findall(r"\]\(([^)#]+)\)", _readme):
        if not name.startswith("http"):
            assert (_root / name).exists(), name
    for name in re.findall(r"`((?:cfg|src|csrc|datasets|tests|benchmarks|notebooks)/[\w./-]+)`", _readme):
        if not any(word in name for word in ("NAME", "leaky", "decay", "parity", "benchmarks/latest")):
            assert (_root / name).exists(), name


def test_the_table_of_rooms_has_every_folder():
    rooms = {path.name for path in (_root / "src" / "seqmem").iterdir() if (path / "__init__.py").exists()}
    table = _readme.partition("## Where things are")[2].partition("## ")[0]
    assert rooms - {"datasets"} == set(re.findall(r"^\| `src/seqmem/(\w+)/`", table, re.MULTILINE))
