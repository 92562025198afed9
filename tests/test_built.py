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


@pytest.mark.parametrize("folder", ["src/seqmem/cells", "cfg/model", "csrc", "datasets"])
def test_an_untracked_file_of_the_sources_shows(checkout, folder):
    package = checkout / "src" / "seqmem"
    package.mkdir(parents=True)
    (package / "code.py").write_text("a = 1")
    git(checkout, "add", ".")
    git(checkout, "commit", "-q", "-m", "second")
    before = built.commit(package)
    (checkout / ".git" / "info" / "exclude").write_text("*.so\nbuilt/\n")
    for path in ("notes.txt", f"{folder}/ignored.so", f"{folder}/built/a.py"):
        (checkout / path).parent.mkdir(parents=True, exist_ok=True)
        (checkout / path).write_text("a")
    assert built.commit(checkout) == built.commit(package) == before
    (checkout / folder / "mine.py").write_text("a = 1")
    assert built.commit(checkout) == built.commit(package) == f"{before}-dirty"


@pytest.mark.parametrize("command", ["rev-parse", "diff"])
def test_where_git_fails_the_commit_is_not_known(checkout, monkeypatch, command):
    """Where it fails with something other than a difference, as in a damaged repository."""
    called = built._git

    def failing(folder, *arguments):
        done = called(folder, *arguments)
        return subprocess.CompletedProcess(done.args, 128, "", "fatal") if arguments[0] == command else done

    assert len(built.commit(checkout)) == 40
    monkeypatch.setattr(built, "_git", failing)
    assert built.commit(checkout) is None


def test_a_shallow_clone_has_its_commit(checkout, tmp_path):
    git(checkout, "commit", "-q", "--allow-empty", "-m", "second")
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{checkout}", tmp_path / "shallow"], check=True)
    assert built.commit(tmp_path / "shallow") == built.commit(checkout)


@pytest.mark.parametrize("content", [None, "", "[]", json.dumps({"commit": None, "sources": ""})])
def test_without_a_commit_the_hash_remains(installed, content):
    path = installed / "built_from.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    assert built.read(installed)["commit"] is None
    assert len(built.read(installed)["sources"]) == 64
