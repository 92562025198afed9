"""The part "tests": every test that is marked gpu, on the device."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.gpu.parts import STARTED
from benchmarks.gpu.session import Session

ROOT = Path(__file__).parents[2]
SMOKE = "ema or (gru and autocast)"


def main() -> None:
    """Run the tests; the exit status is 0 also if some fail, which the file of outcomes says."""
    session = Session("tests")
    os.environ["SEQMEM_TEST_DEVICE"] = session.device
    again = (session.folder / f"tests.{STARTED}").exists()
    os.environ["BENCHMARK_FOLDER"] = str(session.folder.resolve())
    # A test that kills its process ends a worker of several, and else the run's process, which is then started again.
    processes = min(8, (os.cpu_count() or 1) // 2) if find_spec("xdist") and not again and not session.smoke else 0
    options = ["-n", str(processes)] if find_spec("xdist") else []
    selected = ["-k", SMOKE] if session.smoke else []
    common = ["-p", "benchmarks.gpu.recorder", "-p", "no:cacheprovider", "-m", "gpu", "-v", "--tb=short"]
    # A machine without the C++ library is one of those that this run is for.
    quiet = ["-W", "ignore::seqmem.ops.extension.ReferenceWarning"]
    status = pytest.main([*common, *quiet, *options, *selected, *map(str, files())])
    sys.exit(0 if status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) else int(status))


def files() -> list[Path]:
    """Return the files with tests that are marked gpu: to collect all tests takes longer."""
    found = sorted((ROOT / "tests").rglob("test_*.py"))
    return [path for path in found if "pytest.mark.gpu" in path.read_text(encoding="utf-8")]


if __name__ == "__main__":
    main()
