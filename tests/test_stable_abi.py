"""The operator that benchmarks/stable_abi writes by torch's stable ABI: it builds, and agrees with the reference."""

import shutil
import subprocess
import sys

import pytest

from tests.program import ROOT


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_stable_operator_agrees(tmp_path):
    """In a process of its own: a library cannot be unloaded."""
    code = (
        "import sys, torch; from pathlib import Path; from benchmarks.stable_abi import __main__ as stable; "
        "torch.ops.load_library(stable.build(Path(sys.argv[1], 'stable.so'))); stable.compare_with_reference()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
