"""The chooser: which path is taken, what is said about it, and that a bad library is never loaded."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import seqmem
from seqmem.ops import extension

UPDATE = "import torch; from seqmem.ops import legs_update; legs_update(torch.zeros(1, 1, 3), torch.ones(1, 1), 0.5)\n"

needs_library = pytest.mark.skipif(not extension.LIBRARY.exists(), reason=f"{extension.LIBRARY.name} is not built")


def python(*arguments: str, package: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | variables
    environment.pop("SEQMEM_REFERENCE", None)
    environment |= variables
    if package:
        environment.pop("SEQMEM_EXTENSION", None)
        environment["PYTHONPATH"] = str(package)
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package without its compiled library, to be put on PYTHONPATH."""
    source = Path(seqmem.__file__).parent
    shutil.copytree(source, tmp_path / "seqmem", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return tmp_path


@needs_library
def test_the_compiled_path_is_silent():
    done = python("-W", "error", "-c", UPDATE + "from seqmem.ops import paths; print(set(paths().values()))")
    assert (done.stdout, done.stderr) == ("{'compiled'}\n", "")


def test_the_reference_can_be_asked_for():
    done = python(
        "-W", "error", "-c", UPDATE + "from seqmem.ops import paths; print(set(paths().values()))", SEQMEM_REFERENCE="1"
    )
    assert (done.stdout, done.stderr) == ("{'reference (SEQMEM_REFERENCE is set)'}\n", "")


def test_a_missing_library_is_told_once_at_the_first_use(package):
    assert python("-W", "error", "-c", "import seqmem.ops", package=package).stderr == ""
    done = python("-c", UPDATE + "legs_update(torch.zeros(1, 1, 3), torch.ones(1, 1), 0.5)", package=package)
    assert done.returncode == 0
    assert done.stderr.count("ReferenceWarning") == 1
    assert "there is no compiled library" in done.stderr
    assert "pip install -e . --no-build-isolation" in done.stderr


def test_the_report_names_each_operator_and_the_reason(package):
    done = python("-m", "seqmem.ops", package=package)
    assert done.returncode == 0
    assert all(name in done.stdout for name in (*extension.UPDATES, "legs_function_approx_trapezoidal"))
    assert "there is no compiled library" in done.stdout


@needs_library
def test_the_report_of_the_compiled_path():
    done = python("-m", "seqmem.ops")
    assert "compiled" in done.stdout
    assert "reference\n" not in done.stdout
    assert f"torch {torch.__version__.split('+')[0]}" in done.stdout


@needs_library
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.99])
def test_a_library_that_is_cut_short_is_not_loaded(package, share):
    content = extension.LIBRARY.read_bytes()
    (package / "seqmem" / "ops" / "_extension.so").write_bytes(content[: int(share * len(content))])
    done = python("-c", UPDATE, package=package)
    assert done.returncode == 0
    assert "is cut short" in done.stderr or "is not a library of this package" in done.stderr


@needs_library
def test_a_library_for_another_torch_is_not_loaded(tmp_path):
    version = torch.__version__.split("+")[0]
    library = tmp_path / "_extension.so"
    other = "0" + version[1:]
    library.write_bytes(
        extension.LIBRARY.read_bytes().replace(f"for torch {version}\n".encode(), f"for torch {other}\n".encode())
    )
    assert extension.load(library) == f"{library} was built for torch {other}, this is torch {version}"


def test_a_file_of_something_else_is_not_loaded(tmp_path):
    library = tmp_path / "_extension.so"
    library.write_text("hello")
    assert extension.load(library) == f"{library} is not a library of this package"


def test_a_library_that_the_system_refuses_is_a_reason(tmp_path):
    library = tmp_path / "_extension.so"
    library.write_text(f"seqmem built for torch {torch.__version__.split('+')[0]}\n")
    assert extension.load(library).startswith(f"{library} cannot be loaded: ")


def test_the_extension_is_built_where_it_can_be():
    """Without it most tests of csrc/ are skipped, and a build that fails would go unnoticed."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None or extension.FORCED:
        pytest.skip("no compiler, or the reference is asked for")
    assert extension.REASON == ""
