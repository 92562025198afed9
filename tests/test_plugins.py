"""Cells and data sets of one's own, outside of the checkout: found, part of a trial's identity, and needed to read it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from seqmem import plugins
from seqmem.errors import UserError
from tests import program

ROOT = Path(__file__).parents[1]
OWN = Path(__file__).with_name("own_cells.py")
FOUND = "a module in this folder or on PYTHONPATH"
CHOSEN = ("dataset=majority", "model=leaky", "smoke_test=true")


def write(folder):
    """Write a plugin of two modules and its YAML files into a folder."""
    shutil.copy(OWN, folder / "my_cells.py")
    (folder / "own_helper.py").write_text("FACTOR = 1.0\n")
    for group in ("model", "dataset"):
        (folder / "cfg" / group).mkdir(parents=True)
    (folder / "cfg/model/leaky.yaml").write_text("network: recurrent\ncell: leaky\ncell_args: {hidden_size: 8, tau: 10.0}\n")
    (folder / "cfg/dataset/majority.yaml").write_text("name: majority\nlength: 20\n")


def install(folder, module="my_cells", name="my-cells"):
    """Write the metadata of an installed package with an entry point; the folder is to be on PYTHONPATH."""
    metadata = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[seqmem.plugins]\nmine = {module}\n")


def train(folder, *arguments):
    return program.run(["-m", "seqmem", "train", *CHOSEN, *arguments], folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The user's folder after a training."""
    folder = tmp_path_factory.mktemp("user")
    write(folder)
    done = train(folder, "seqmem.plugins=[my_cells]")
    assert done.returncode == 0, done.stderr
    return folder


def test_a_module_of_the_current_folder_registers_cells_and_data_sets(trained):
    [trial] = trained.glob("runs/majority_leaky_*/seed_0")
    assert json.loads((trial / "record.json").read_text())["status"] == "finished"
    assert "- my_cells" in (trial / "config.yaml").read_text()


@pytest.mark.slow
def test_an_installed_plugin_is_the_same(trained, tmp_path):
    """From a different folder, without a key; the trial is that of the module which a key named."""
    installed = tmp_path / "site"
    shutil.copytree(trained, installed, ignore=shutil.ignore_patterns("runs"))
    install(installed)
    environment = {**os.environ, "PYTHONPATH": f"{installed}{os.pathsep}{ROOT / 'src'}"}
    command = [sys.executable, "-m", "seqmem", "train", *CHOSEN]
    done = subprocess.run(command, cwd=trained, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "found in runs/majority_leaky_" in done.stdout


def test_a_change_next_to_the_module_makes_a_new_trial(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (tmp_path / "own_helper.py").write_text("FACTOR = 1.0  # a comment\n")
    assert "found in runs/" in train(tmp_path, "seqmem.plugins=[my_cells]").stdout
    (tmp_path / "own_helper.py").write_text("FACTOR = 2.0\n")
    done = train(tmp_path, "seqmem.plugins=[my_cells]")
    assert "found in" not in done.stdout
    assert len(list((tmp_path / "runs").glob("majority_leaky_*"))) == 2


def test_a_trial_is_read_with_its_plugin_alone(trained):
    [trial] = trained.glob("runs/majority_leaky_*/seed_0")
    refused = program.run(["evaluate.py", str(trial)], trained)
    assert refused.returncode == 2
    assert "was trained with seqmem.plugins=[my_cells]; give that here too" in refused.stderr
    done = program.run(["evaluate.py", str(trial), "seqmem.plugins=[my_cells]"], trained)
    assert done.returncode == 0, done.stderr
    assert "leaky on majority, seed 0, epoch 1, test split" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["seqmem.plugins=[my_cell]"],
            f"error: seqmem.plugins: got my_cell, expected {FOUND}; did you mean 'my_cells'?",
        ),
        (
            ["seqmem.plugins=[my_cells.py]"],
            f"error: seqmem.plugins: got my_cells.py, expected {FOUND}; did you mean 'my_cells'?",
        ),
        (["seqmem.plugins=my_cells"], "error: seqmem.plugins: got 'my_cells', expected a valid list"),
        (
            ["seqmem.plugins=[broken]"],
            "error: seqmem.plugins: got broken, whose import failed: ModuleNotFoundError: No module named 'nowhere'",
        ),
        (
            ["seqmem.plugins=[taken]"],
            "error: seqmem.plugins: taken: taken.Mine: got the name 'gru', which is that of seqmem.cells.gru.GRU; choose a new "
            "one",
        ),
    ],
)
def test_mistakes_are_one_line(trained, arguments, line):
    (trained / "broken.py").write_text("import nowhere\n")
    (trained / "taken.py").write_text(
        "from seqmem.sequence import SequenceLayer\n\n\nclass Mine(SequenceLayer):\n    name = 'gru'\n"
    )
    done = program.run(["-m", "seqmem", "train", "dataset=digits", "model=gru", *arguments], trained)
    assert done.returncode == 2
    assert done.stderr == line + "\n"


@pytest.fixture
def entry_points(tmp_path, monkeypatch):
    """The folder of installed packages, empty; they are found again afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    plugins._installed.cache_clear()
    yield tmp_path
    plugins._installed.cache_clear()
    plugins._failed.clear()


def test_an_installed_plugin_is_found(entry_points, monkeypatch):
    (entry_points / "of_a_package.py").write_text("imported = True\n")
    (entry_points / "cfg").mkdir()
    install(entry_points, "of_a_package", "someones")
    assert plugins.modules()[-1] == "of_a_package"
    assert entry_points / "cfg" in plugins.folders()
    assert "of_a_package" not in sys.modules, "the folders are found without an import"
    plugins.load()
    assert sys.modules.pop("of_a_package").imported


def test_a_broken_installed_plugin_is_a_warning(entry_points):
    """It may be of a package that the user does not need now; one warning is enough."""
    (entry_points / "damaged.py").write_text("1 / 0\n")
    install(entry_points, "damaged", "someones")
    with pytest.warns(plugins.PluginWarning, match="plugin damaged of someones is not used, .* failed: ZeroDivisionError"):
        plugins.load()
    plugins.load()


def test_a_layer_of_this_package_may_be_defined_again():
    registry = {}
    own = type("Own", (nn.Module,), {"name": "one", "__module__": "seqmem.cells.one"})
    plugins.register(registry, own)
    plugins.register(registry, own)
    with pytest.raises(UserError, match=r"elsewhere.Other: got the name 'one', which is that of seqmem.cells.one.Own"):
        plugins.register(registry, type("Other", (nn.Module,), {"name": "one", "__module__": "elsewhere"}))
