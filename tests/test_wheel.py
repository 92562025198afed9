"""The installed package: built and put into an empty environment, used from an empty folder, without the checkout.

torch and the other dependencies are those of the environment that runs the tests, by a .pth file: nothing is downloaded.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from seqmem.cli import choices
from seqmem.io import built

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SMALL = ("dataset=digits", "model.preset=tiny", "smoke_test=true")
PIP = ("-m", "pip", "--disable-pip-version-check", "-q")
NOTHING_ELSE = ("--no-build-isolation", "--no-deps", "--no-index")

if not (ROOT / ".git").exists():
    pytest.skip("needs a git checkout", allow_module_level=True)


def run(*command, cwd, **more):
    """Run a command in a folder without the variables that lead to the checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SEQMEM_", "PYTHON"))}
    arguments = [str(part) for part in command]
    return subprocess.run(arguments, cwd=cwd, env={**kept, **more}, capture_output=True, text=True, check=False, timeout=1500)


def done(*command, cwd, **more):
    """Standard output of a command that has to succeed."""
    ended = run(*command, cwd=cwd, **more)
    assert ended.returncode == 0, f"{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"
    return ended.stdout


def empty_environment(folder):
    """The python of a new environment that finds the packages of this one, but not seqmem."""
    venv.create(folder, symlinks=True)
    python = folder / "bin/python"
    [site] = done(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).splitlines()
    places = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    places |= dict.fromkeys(path for path in sys.path if path.endswith("-packages"))
    Path(site, "dependencies.pth").write_text("\n".join(places) + "\n")
    return python


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A clone with the changes of this working tree and its compiled operators, if it has any."""
    folder = tmp_path_factory.mktemp("clone") / "seqmem"
    done("git", "clone", "-q", ROOT, folder, cwd=ROOT)
    changed = done("git", "ls-files", "-m", "-o", "--exclude-standard", cwd=ROOT).splitlines()
    for name in changed:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    library = Path("src/seqmem/ops/_extension.so")
    if (ROOT / library).exists():
        shutil.copy(ROOT / library, folder / library)
    return folder


@pytest.fixture(scope="module")
def python(checkout, tmp_path_factory):
    """The python of an environment into which the wheel was installed; the wheel's sources are gone."""
    folder = tmp_path_factory.mktemp("wheel")
    done(sys.executable, *PIP, "wheel", *NOTHING_ELSE, "-w", folder, checkout, cwd=folder)
    [wheel] = folder.glob("seqmem-*.whl")
    found = empty_environment(folder / "env")
    done(sys.executable, *PIP, "--python", found, "install", "--no-deps", "--no-index", "--ignore-installed", wheel, cwd=folder)
    return found


@pytest.fixture(scope="module")
def seqmem(python):
    """The console command."""
    return python.with_name("seqmem")


@pytest.fixture(scope="module")
def trained(seqmem, tmp_path_factory):
    """An empty folder in which a model was trained."""
    folder = tmp_path_factory.mktemp("user")
    out = done(seqmem, "train", *SMALL, "model=legs", cwd=folder)
    assert "one compiled call" in out or "reference" in out
    return folder


def record(folder):
    [path] = folder.glob("runs/*_*/seed_0/record.json")
    return json.loads(path.read_text())


def test_the_package_is_the_installed_one(python, trained):
    code = "import seqmem, hydra_plugins; print(seqmem.__file__)"
    assert Path(done(python, "-c", code, cwd=trained).strip()).is_relative_to(python.parents[1])


def test_all_configs_and_data_sets_are_installed(seqmem, trained):
    text = done(seqmem, "train", "--help", cwd=trained)
    for group in ("dataset", "model", "experiment", "train", "runner"):
        assert f"\n{group}: {', '.join(choices.names(group))}\n" in text
    check = "from seqmem import datasets; print(*datasets.names())"
    assert "mnist" in done(seqmem.with_name("python"), "-c", check, cwd=trained).split()


def test_the_record_names_the_commit_of_the_build(checkout, trained):
    found = record(trained)
    assert found["commit"] == built.commit(checkout)
    assert len(found["sources"]) == 64
    assert found["versions"]["seqmem"] == "0.1.0"
    assert found["command"][0] == "seqmem train"


def test_a_trial_is_reported_evaluated_and_exported(seqmem, trained):
    assert "1 trial, in 1 row: runs/report.html" in done(seqmem, "report", "runs", cwd=trained)
    [trial] = trained.glob("runs/*_*/seed_0")
    out = done(seqmem, "evaluate", trial, cwd=trained)
    assert "record of this evaluation: " in out
    assert "greatest difference" in done(seqmem, "export", trial, "--out", "model.pt2", cwd=trained)
    assert (trained / "model.pt2").exists()


def test_a_sweep_runs_in_worker_processes(seqmem, tmp_path):
    out = done(seqmem, "train", "-m", *SMALL, "model=rnn,gru", "runner.workers=2", cwd=tmp_path)
    assert "best validation accuracy on digits" in out
    assert "seqmem train dataset=digits" in out
    assert len(list(tmp_path.glob("runs/digits_*/seed_0/record.json"))) == 2


def test_ones_own_table_is_classified(seqmem, tmp_path):
    """From a CSV to predictions of new rows, without code."""
    header, lines = "id,time,x", [f"r{k},{t},{t * (k % 2)}" for k in range(40) for t in range(3 + k % 2)]
    labelled = [f"{line},{'ab'[int(line[1 : line.index(',')]) % 2]}" for line in lines]
    (tmp_path / "walks.csv").write_text("\n".join([f"{header},label", *labelled]) + "\n")
    (tmp_path / "new.csv").write_text("\n".join([header, *lines[:7]]) + "\n")
    arguments = ("dataset=files", "dataset.path=walks.csv", "model=gru", "model.preset=tiny", "train.epochs=2")
    done(seqmem, "train", *arguments, cwd=tmp_path)
    [trial] = tmp_path.glob("runs/*/seed_0")
    assert done(seqmem, "predict", trial, "new.csv", cwd=tmp_path)


def test_own_files_come_before_those_of_the_package(seqmem, tmp_path):
    """A model, an experiment, and a data set of the name of a packaged one."""
    for name, content in {
        "model/small.yaml": "network: recurrent\ncell: gru\ncell_args: {hidden_size: 5}\n",
        "dataset/digits.yaml": "name: digits\npermute: true\n",
        "experiment/mine.yaml": "# @package _global_\ndefaults:\n  - override /model: small\ntrain: {epochs: 2}\n",
    }.items():
        (tmp_path / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "own" / name).write_text(content)
    out = done(seqmem, "train", "--config-dir", "own", "dataset=digits", "experiment=mine", "smoke_test=true", cwd=tmp_path)
    assert "gru on digits" in out
    [config] = tmp_path.glob("runs/*/seed_0/config.yaml")
    assert "permute: true" in config.read_text()
    assert "hidden_size: 5" in config.read_text()


def test_an_installed_plugin_needs_no_key(python, seqmem, tmp_path):
    package = tmp_path / "plugin"
    for group in ("model", "dataset"):
        (package / "src/own_cells/cfg" / group).mkdir(parents=True)
    shutil.copy(ROOT / "tests/own_cells.py", package / "src/own_cells/__init__.py")
    module = (package / "src/own_cells/__init__.py").read_text().replace("from own_helper import", "from .helper import")
    (package / "src/own_cells/__init__.py").write_text(module)
    (package / "src/own_cells/helper.py").write_text("FACTOR = 1.0\n")
    (package / "src/own_cells/cfg/model/leaky.yaml").write_text(
        "network: recurrent\ncell: leaky\ncell_args: {hidden_size: 8}\n"
    )
    (package / "src/own_cells/cfg/dataset/majority.yaml").write_text("name: majority\nlength: 20\n")
    (package / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "own-cells"\nversion = "1.0"\n'
        '[project.entry-points."seqmem.plugins"]\nown = "own_cells"\n'
        '[tool.setuptools.package-data]\nown_cells = ["cfg/**/*.yaml"]\n'
    )
    done(sys.executable, *PIP, "--python", python, "install", *NOTHING_ELSE, package, cwd=tmp_path)
    try:
        out = done(seqmem, "train", "dataset=majority", "model=leaky", "smoke_test=true", cwd=tmp_path)
        assert "leaky on majority" in out
        assert done(seqmem, "evaluate", *tmp_path.glob("runs/*_*/seed_0"), cwd=tmp_path)
    finally:
        done(sys.executable, *PIP, "--python", python, "uninstall", "-y", "own-cells", cwd=tmp_path)


def test_pip_installs_from_a_git_address_without_a_compiler(tmp_path):
    """The reference operators take over, with a warning that names the remedy."""
    python = empty_environment(tmp_path / "env")
    address = f"git+file://{ROOT}"
    install = (sys.executable, *PIP, "--python", python, "install", *NOTHING_ELSE, "--ignore-installed", address)
    done(*install, cwd=tmp_path, CXX="/bin/false", CC="/bin/false")
    ended = run(python.with_name("seqmem"), "train", *SMALL, "model=legs", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "the slower reference operators are in use" in ended.stderr
    assert "pip install" in ended.stderr
    assert record(tmp_path)["commit"] == done("git", "rev-parse", "HEAD", cwd=ROOT).strip()
    assert "reference" in record(tmp_path)["backend"]


def test_a_source_archive_holds_all_that_the_build_needs(checkout, tmp_path):
    code = "from setuptools import build_meta; print(build_meta.build_sdist('OUT'))".replace("OUT", str(tmp_path))
    done(sys.executable, "-c", code, cwd=checkout)
    [archive] = tmp_path.glob("seqmem-*.tar.gz")
    shutil.unpack_archive(archive, tmp_path)
    [unpacked] = (path for path in tmp_path.iterdir() if path.is_dir())
    tracked = done("git", "ls-files", "cfg", "csrc", "datasets", "src", cwd=checkout).splitlines()
    assert not [name for name in tracked if not (unpacked / name).exists()]
