"""The parts of a run: each is a process with its own time limit, and none stops the others. Needs Python alone."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.rows import LOG, append

STARTED = "started"
"""Suffix of the file in which a part names each of its items before it begins with it."""

COMMAND = "python -m benchmarks.gpu"

FINISHED, FAILED, OUT_OF_TIME = "finished", "failed", "out of time"


@dataclass(frozen=True)
class Part:
    """A part of a run.

    Attributes:
        name: its name.
        command: the process.
        seconds: its time limit.
        restarts: the process names its items in ``NAME.started`` and leaves out those that the file has. So it is started again
            if it dies in one of them, as a program does after an error on the device.
    """

    name: str
    command: Sequence[str]
    seconds: float
    restarts: bool = False


def run_parts(
    parts: Sequence[Part], folder: Path, seconds: float, environment: Mapping[str, str], report: Callable[[str], None] = print
) -> dict[str, str]:
    """Run parts one after the other, and write a row about each.

    Args:
        parts: in order.
        folder: of the run.
        seconds: time limit of all of them. A part without time is not started.
        environment: variables of the processes.
        report: receives a line at the beginning and the end of each part.

    Returns:
        What became of each part, by name.
    """
    start, outcomes = time.monotonic(), {}
    for part in parts:
        left = min(part.seconds, seconds - (time.monotonic() - start))
        report(f"{part.name}: at most {max(left, 0):.0f} s")
        begun = time.monotonic()
        outcome = _run(part, folder, left, environment) if left > 0 else OUT_OF_TIME
        taken = time.monotonic() - begun
        outcomes[part.name] = outcome
        append(folder, COMMAND, part=part.name, case="part", quantity="time", value=f"{taken:.1f}", unit="s", note=outcome)
        report(f"{part.name}: {outcome} after {taken:.0f} s")
    return outcomes


def _run(part: Part, folder: Path, seconds: float, environment: Mapping[str, str]) -> str:
    end = time.monotonic() + seconds
    started = folder / f"{part.name}.{STARTED}"
    started.unlink(missing_ok=True)
    while True:
        before = _size(started)
        code = _process(part, folder, end - time.monotonic(), environment)
        if code is None:
            return OUT_OF_TIME
        if code == 0:
            return FINISHED
        if not part.restarts or _size(started) == before:
            return f"{FAILED} (exit status {code}, see {LOG})"


def _process(part: Part, folder: Path, seconds: float, environment: Mapping[str, str]) -> int | None:
    """Return the exit status of a part's process, or None if it was ended at its limit; its output goes to the log."""
    with open(folder / LOG, "a") as log:
        log.write(f"\n===== {part.name}: {' '.join(part.command)}\n")
        log.flush()
        process = subprocess.Popen(
            part.command,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        try:
            return process.wait(max(seconds, 0.1))
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and those that it started, which share its group."""
    for number, patience in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
