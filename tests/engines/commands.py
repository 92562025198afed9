"""train.py in a process of its own, as a user starts it, and the results of its trials."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
TINY = (
    "dataset=digits",
    "model.preset=tiny",
    "train.epochs=2",
    "train.batch_size=31",
    "train.lr=0.01",
    "train.limit_train_batches=7",
)


def require(module: str, extra: str) -> None:
    """Skip the tests of a module without the package that they need."""
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed: pip install -e '.[{extra}]'", allow_module_level=True)


def run(*arguments: str, cwd: Path, threads: int | None = 1, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run train.py with ``arguments``."""
    process = start(*arguments, cwd=cwd, threads=threads)
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def start(*arguments: str, cwd: Path, threads: int | None = 1) -> subprocess.Popen[str]:
    """Start train.py with ``arguments``, as the first process of a group; None leaves the number of threads to it."""
    paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    usual = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    given = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        start_new_session=True,
        env={**usual, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **given},
    )


def interrupted(process: subprocess.Popen[str], number: int, moment: Callable[[], bool]) -> str:
    """Send a signal to a command and its workers at a moment, and return its standard error after its end."""
    while not moment():
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, number)
    _, stderr = process.communicate(timeout=200)
    return stderr


def first_metrics(process: subprocess.Popen[str], folder: Path) -> Path:
    """The metrics.csv of the only trial below ``folder``, as soon as the first epoch has ended."""
    while True:
        assert process.poll() is None
        for path in folder.glob("runs/*/seed_0/metrics.csv"):
            return path
        time.sleep(0.2)


def found(folder: Path) -> dict[str, Any]:
    """The result and the metrics of each trial, times aside, by its path."""
    trials = {}
    for path in sorted(folder.rglob("record.json")):
        record = json.loads(path.read_text())
        metrics = pd.read_csv(path.parent / "metrics.csv").drop(columns=["seconds", "sequences_per_second"])
        trials[str(path.parent.relative_to(folder))] = record["status"], record.get("result"), metrics.to_dict()
    return trials


def statuses(folder: Path) -> list[str]:
    """The statuses of all trials."""
    return [json.loads(path.read_text())["status"] for path in (folder / "runs").rglob("record.json")]
