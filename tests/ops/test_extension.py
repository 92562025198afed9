"""Loading of the compiled operators: the path in use, the messages about it, and files that must not be loaded."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import seqmem
from seqmem.ops import __main__ as report
from seqmem.ops import extension, paths
from tests.ops.registered import compiled_operators

UPDATE = "import torch; from seqmem.ops import legs_update; legs_update(torch.zeros(1, 1, 3), torch.ones(1, 1), 0.5)\n"
VERSION = torch.__version__.split("+")[0]

needs_library = pytest.mark.skipif(bool(extension.REASON), reason=f"no compiled operators: {extension.REASON}")


def python(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script in an own process: the library is loaded at import."""
    removed = ("SEQMEM_REFERENCE", "SEQMEM_EXTENSION")
    environment = {name: value for name, value in os.environ.items() if name not in removed} | variables
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)


def test_seqmem_reference_selects_the_reference_silently():
    script = "import warnings; warnings.simplefilter('error')\n" + UPDATE
    done = python(script + "from seqmem.ops import paths; print(set(paths().values()))", SEQMEM_REFERENCE="1")
    assert (done.stdout, done.stderr) == ("{'reference (SEQMEM_REFERENCE is set)'}\n", "")


def test_a_missing_library_warns_once_at_the_first_use(tmp_path):
    """In a copy of the package without its library, as an install without a compiler leaves it."""
    source = Path(seqmem.__file__).parent
    shutil.copytree(source, tmp_path / "seqmem", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    script = "import seqmem.ops, sys; print('imported', file=sys.stderr)\n" + UPDATE + UPDATE
    done = python(script + "from seqmem.ops.__main__ import main; main()", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    before, after = done.stderr.split("imported\n")
    assert before == ""
    assert after.count("ReferenceWarning") == 1
    assert "_extension.so does not exist; " in after
    assert "`pip install --force-reinstall --no-deps --no-build-isolation ADDRESS`" in after  # the copy is not a checkout
    assert all(f"{name:34} reference\n" in done.stdout for name in (*extension.UPDATES, *extension.SEQUENCES, *extension.SCANS))
    assert "reason      the compiled library" in done.stdout


@needs_library
def test_the_compiled_path_is_silent_and_reported(capsys, recwarn):
    extension.warn_once()
    assert not recwarn
    assert set(paths().values()) == {"compiled"}
    named = {name.removeprefix("seqmem::").partition(".")[0] for name in compiled_operators()}
    derivatives = {name for name in named if name.endswith("_adjoint") or name.removesuffix("_backward") in named - {name}}
    assert set(paths()) == named - derivatives
    report.main()
    printed = capsys.readouterr().out
    assert all(f"{name:34} compiled\n" in printed for name in paths())
    assert f"built for   torch {VERSION}" in printed


def test_reference_only_switches_the_path():
    before = paths()
    with extension.reference_only("a test"):
        assert set(paths().values()) == {"reference (a test)"}
    assert paths() == before


@needs_library
def test_a_truncated_library_is_not_loaded(tmp_path):
    content = extension.LIBRARY.read_bytes()
    for fraction in (0.0, 0.00001, 0.001, 0.3, 0.99):
        library = tmp_path / "_extension.so"
        library.write_bytes(content[: int(fraction * len(content))])
        expected = {f"{library}: the file is truncated", f"{library}: not a library of seqmem"}
        assert extension._unusable_reason(library) in expected
        assert extension.load(library) in expected


@needs_library
def test_a_library_for_another_torch_is_not_loaded(tmp_path):
    library, other = tmp_path / "_extension.so", "0" + VERSION[1:]
    content = extension.LIBRARY.read_bytes()
    library.write_bytes(content.replace(f"for torch {VERSION}\n".encode(), f"for torch {other}\n".encode()))
    assert extension.load(library) == f"{library}: built for torch {other}, expected torch {VERSION}"


def test_another_file_is_not_loaded(tmp_path):
    library = tmp_path / "_extension.so"
    library.write_text("hello")
    assert extension.load(library) == f"{library}: not a library of seqmem"
    library.write_text(f"seqmem built for torch {VERSION}\n")  # the system refuses it
    assert extension.load(library).startswith(f"{library}: loading failed (")
    assert extension.load(tmp_path) == f"{tmp_path}: reading failed (Is a directory)"


def test_the_extension_is_built_if_there_is_a_compiler():
    """Otherwise most tests of csrc/ are skipped, and a failing build stays unnoticed."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None or extension.FORCED:
        pytest.skip("no compiler, or the reference is requested")
    assert extension.REASON == ""
