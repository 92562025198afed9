"""The numbers that every engine must give, and a process that can fork."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from seqmem.training.engines import workers
from tests.engines.commands import ROOT, TINY, found, run


@pytest.fixture(scope="session")
def sequential(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of a sweep over two models with two trials each in one process."""
    folder: Path = tmp_path_factory.mktemp("sequential")
    done = run("-m", *TINY, "model=lstm,rnn", "runner.ntrials=2", cwd=folder)
    assert done.returncode == 0, done.stderr
    trials = found(folder / "runs")
    assert len(trials) == 4
    return trials


@pytest.fixture
def forking(request: pytest.FixtureRequest) -> None:
    """Run the test in a process of its own if this one has threads of autograd, for example by an earlier test.

    Trials in other processes have what a test replaces in this one only if they are forked.
    """
    if workers.start_method(1) == "fork" or sys.platform != "linux":
        return
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--run-slow", request.node.nodeid]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    pytest.skip("it passed in a process of its own, since this one cannot fork")
