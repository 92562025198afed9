"""The numbers that every engine must give."""

from pathlib import Path
from typing import Any

import pytest

from tests.engines.commands import TINY, found, run


@pytest.fixture(scope="session")
def sequential(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of a sweep over two models with two trials each in one process."""
    folder: Path = tmp_path_factory.mktemp("sequential")
    done = run("-m", *TINY, "model=lstm,rnn", "runner.ntrials=2", cwd=folder)
    assert done.returncode == 0, done.stderr
    trials = found(folder / "runs")
    assert len(trials) == 4
    return trials
