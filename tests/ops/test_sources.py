"""The hash of the sources in the library: a library of other sources is refused, and one of the same is not built again."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import seqmem
from seqmem.cells import LSTM
from seqmem.cli import commandline
from seqmem.errors import UserError
from seqmem.ops import extension, legs_update, sources
from seqmem.ops.legs_projection import legs_projection

ROOT = Path(__file__).parents[2]
COMMAND = "python setup.py build_ext --inplace"

needs_library = pytest.mark.skipif(bool(extension.REASON), reason=f"no compiled operators: {extension.REASON}")


@pytest.fixture
def csrc(tmp_path):
    """A copy of the sources."""
    return Path(shutil.copytree(sources.CSRC, tmp_path / "csrc"))


def test_the_hash_covers_names_bytes_and_flags(csrc, monkeypatch):
    unchanged = sources.source_hash()
    assert sources.source_hash(csrc) == unchanged
    (csrc / "notes.txt").write_text("not a source")
    assert sources.source_hash(csrc) == unchanged
    header = csrc / "legs.h"
    content = header.read_bytes()
    header.write_bytes(content + b"\n")
    found = {unchanged, sources.source_hash(csrc)}
    header.write_bytes(content)
    header.rename(csrc / "legs2.h")
    found.add(sources.source_hash(csrc))
    monkeypatch.setattr(sources, "FLAGS", (*sources.FLAGS, "-ffast-math"))
    assert len(found | {sources.source_hash()}) == 4


def test_flags_of_the_environment_are_part_of_the_identity(monkeypatch):
    for name in ("CFLAGS", "CPPFLAGS", "CXXFLAGS"):
        monkeypatch.delenv(name, raising=False)
    plain = sources.identity()
    monkeypatch.setenv("CXXFLAGS", "-march=native")
    assert plain == sources.source_hash()
    assert re.fullmatch(re.escape(plain) + r"\+[0-9a-f]{8}", sources.identity())


@needs_library
def test_a_library_of_other_sources_is_stale(csrc, tmp_path):
    assert extension.built_from(extension.LIBRARY).partition("+")[0] == sources.source_hash()
    assert extension.built_from(tmp_path / "missing.so") == ""
    assert extension.stale_reason(extension.LIBRARY, csrc) == ""
    assert extension.stale_reason(extension.LIBRARY, tmp_path / "no sources") == ""  # an installed package
    (csrc / "legs.h").write_text("// changed")
    reason = extension.stale_reason(extension.LIBRARY, csrc)
    assert reason.startswith(f"{extension.LIBRARY}: got a build of sources {sources.source_hash()[:10]}, expected ")
    assert f"cd {tmp_path} && {COMMAND}" in reason
    assert "SEQMEM_REFERENCE=1" in reason
    unmarked = tmp_path / "_extension.so"
    unmarked.write_bytes(extension.LIBRARY.read_bytes().replace(b"seqmem sources ", b"seqmem_sources "))
    assert "got a build of sources unknown" in extension.stale_reason(unmarked, csrc)


def test_a_stale_library_is_refused_at_the_first_use(monkeypatch):
    """Not at import: the build and its report must run. A reference that is requested runs, too."""
    monkeypatch.setattr(extension, "STALE", "build it again")
    monkeypatch.setattr(extension, "REASON", "build it again")
    monkeypatch.setattr(extension, "FORCED", False)
    memory, inputs = torch.zeros(1, 1, 3), torch.ones(1, 1)
    for use in (
        lambda: legs_update(memory, inputs, 0.5, 0.3),
        lambda: LSTM(3, 2)(memory),
        lambda: legs_projection(inputs, inputs, 0),
    ):
        with pytest.raises(UserError, match="build it again"):
            use()
        with extension.reference_only("a test"):
            use()
    with pytest.raises(UserError, match="build it again"):  # before a training writes anything
        commandline.compose(["dataset=digits", "model=rnn"])


@needs_library
@pytest.mark.slow
def test_a_checkout_with_other_sources_says_how_to_build_it(tmp_path, csrc):
    """In a copy: its report runs, the first use of an operator does not."""
    package = tmp_path / "src" / "seqmem"
    shutil.copytree(Path(seqmem.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    shutil.copy(extension.LIBRARY, package / "ops" / "_extension.so")
    (csrc / "legs.h").write_text("// changed")
    script = "import torch; from seqmem.ops.__main__ import main; main(); from seqmem.ops import legs_update; "
    script += "legs_update(torch.zeros(1, 1, 3), torch.ones(1, 1), 0.5)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SEQMEM_")}
    environment["PYTHONPATH"] = str(tmp_path / "src")
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert f"reason      {package / 'ops' / '_extension.so'}: got a build of sources" in done.stdout
    assert done.returncode == 1
    assert re.search(f"UserError: .*cd {tmp_path} && {COMMAND}", done.stderr.splitlines()[-1])


@needs_library
@pytest.mark.slow
def test_unchanged_sources_are_not_compiled_again(tmp_path):
    folders = ["--build-lib", str(tmp_path / "lib"), "--build-temp", str(tmp_path / "temp")]
    command = [sys.executable, "setup.py", "build_ext", *folders]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"not compiled again: {ROOT / 'src/seqmem/ops/_extension.so'} has the sources" in done.stdout
    assert (tmp_path / "lib/seqmem/ops/_extension.so").read_bytes() == (ROOT / "src/seqmem/ops/_extension.so").read_bytes()
    assert not (tmp_path / "temp").exists()


def test_old_build_tools_are_named_in_one_line(tmp_path):
    metadata = tmp_path / "setuptools-65.5.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: setuptools\nVersion: 65.5.0\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "setup.py", "--version"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    expected = "setuptools: got 65.5.0, expected 78.1.1 or newer; run: pip install --upgrade 'setuptools>=78.1.1'\n"
    assert done.stderr == expected


def test_make_builds_again_after_a_pull(tmp_path):
    """A source that is newer than the build, and one that was removed, are built; otherwise nothing is."""
    for name in ("Makefile", "setup.py", "pyproject.toml", "requirements.txt", "csrc", "src/seqmem/ops/sources.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(ROOT / name, tmp_path / name) if name == "csrc" else shutil.copy(ROOT / name, tmp_path / name)
    built = tmp_path / "venv" / ".seqmem-built"
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    for marker in (tmp_path / "venv/bin/python", tmp_path / "venv/.seqmem-requirements-locked", built):
        marker.touch()
    for path in [path for path in tmp_path.rglob("*") if path != built] + [tmp_path / "csrc"]:
        os.utime(path, (1000, 1000))
    os.utime(built, (2000, 2000))

    # Not the variables of a make that runs the tests.
    own = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}

    def planned() -> str:
        command = ["make", "--dry-run", "setup", "VENV=venv"]
        return subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, text=True, check=True).stdout

    assert "pip install" not in planned()
    os.utime(tmp_path / "csrc/legs.h", (3000, 3000))
    assert "-m pip install --no-build-isolation --no-deps -e ." in planned()
    os.utime(tmp_path / "csrc/legs.h", (1000, 1000))
    assert "pip install" not in planned()
    (tmp_path / "csrc/legs.h").unlink()
    assert "pip install" in planned()


def test_the_hash_needs_no_package():
    """setup.py runs the module before anything is installed."""
    command = [sys.executable, "-I", sources.__file__, "-O1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == sources.definition(sources.identity(more_flags="-O1"))
