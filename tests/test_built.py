"""What an installed package says about its origin: the commit it was built from, and whether it was changed since."""

import json
import shutil
import subprocess

import pytest

from seqmem.io import built, provenance


def git(folder, *arguments):
    subprocess.run(["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True)


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "code.py").write_text("a = 1")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


@pytest.fixture
def installed(tmp_path, checkout):
    """A package in the environment of a different project, whose repository ignores it."""
    project = tmp_path / "project"
    package = project / ".venv/site-packages/seqmem"
    package.mkdir(parents=True)
    (project / ".gitignore").write_text(".venv/\n")
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "not of seqmem")
    shutil.copy(checkout / "code.py", package)
    (package / "cfg").mkdir()
    (package / "cfg/config.yaml").write_text("a: 1")
    built.write(package, checkout)
    return package


def test_the_commit_is_that_of_the_build(checkout, installed):
    assert built.commit(installed) is None, "the repository around it is of a different project"
    assert built.read(installed)["commit"] == built.commit(checkout)
    assert provenance._origin(installed) == built.read(installed)


@pytest.mark.parametrize("changed", ["code.py", "cfg/config.yaml"])
def test_a_change_after_the_build_shows(checkout, installed, changed):
    before = built.read(installed)
    (installed / changed).write_text("a = 2")
    after = built.read(installed)
    assert after["commit"] == f"{before['commit']}-dirty"
    assert after["sources"] != before["sources"]


def test_a_change_before_the_build_shows(checkout, installed):
    (checkout / "code.py").write_text("a = 2")
    built.write(installed, checkout)
    assert built.read(installed)["commit"] == f"{built.commit(checkout).removesuffix('-dirty')}-dirty"


@pytest.mark.parametrize("content", [None, "", "[]", json.dumps({"commit": None, "sources": ""})])
def test_without_a_commit_the_hash_remains(installed, content):
    path = installed / "built_from.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    assert built.read(installed)["commit"] is None
    assert len(built.read(installed)["sources"]) == 64
