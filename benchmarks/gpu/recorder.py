"""A plugin of pytest that writes the outcome of each test as it comes, and ends a test that hangs."""

import faulthandler
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.outcomes import append_outcome, outcomes
from benchmarks.gpu.parts import STARTED

LIMIT = 60.0
"""Seconds of a test."""

FOLDER = "BENCHMARK_FOLDER"
"""Environment variable with the folder of the run."""

folder: Path | None = None
"""None in the workers of pytest-xdist, which report to the process that started them."""


def pytest_configure(config: pytest.Config) -> None:
    """Take the folder of the run."""
    global folder
    folder = None if hasattr(config, "workerinput") else Path(os.environ[FOLDER])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests with which an earlier process of this run began."""
    if folder is None or not _started().exists():
        return
    begun = set(_started().read_text().splitlines())
    written = {row["test"] for row in outcomes(folder)}
    for test in begun - written:
        append_outcome(folder, test, "failed", 0.0, f"the process ended in it, or it took longer than {LIMIT:.0f} s")
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in begun])
    items[:] = [item for item in items if item.nodeid not in begun]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Iterator[None]:
    """End the process, with a traceback in the log, if a test takes too long, or if the device does not compute any more."""
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()
        if _is_broken():
            os._exit(3)


def pytest_runtest_logstart(nodeid: str) -> None:
    """Name the test before it begins."""
    if folder is not None:
        with open(_started(), "a") as file:
            file.write(f"{nodeid}\n")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write the outcome of a test."""
    if folder is not None and (report.when == "call" or report.outcome != "passed"):
        message = ""
        if report.outcome == "skipped" and isinstance(report.longrepr, tuple):
            message = report.longrepr[2]
        elif report.outcome == "failed":
            crash = getattr(report.longrepr, "reprcrash", None)
            message = crash.message if crash else str(report.longrepr)
        append_outcome(folder, report.nodeid, report.outcome, report.duration, message.partition("\n")[0])


def _is_broken() -> bool:
    """Return whether CUDA refuses all further work of this process, as after an illegal access."""
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def _started() -> Path:
    assert folder is not None
    return folder / f"tests.{STARTED}"
