"""Runs this project's commands much as a user would, without waiting for torch and Lightning to be imported for each.

A process that has imported all once is forked for each command: arguments, folder, streams, exit status and the environment
that is read after start-up are the command's own. Effects of Python's start-up are not visible here (PYTHONWARNINGS,
OMP_NUM_THREADS, a warning or a missing import in a module that was imported before): tests of these start their own process.
"""

import atexit
import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]

_context = get_context("forkserver")
_context.set_forkserver_preload(["tests.preloaded"])


def run(
    command: Sequence[str],
    cwd: Path,
    environment: dict[str, str] | None = None,
    timeout: float = 300,
    until: Callable[[], bool] | None = None,
    interrupt: tuple[Callable[[int], bool], int] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run ``python COMMAND...``, a script or ``-m`` and a module, and wait for its end.

    Args:
        command: what follows ``python``; a script's path is relative to the checkout.
        cwd: folder to run it in.
        environment: variables to set in addition to those of this process.
        timeout: seconds after which it is killed.
        until: called every few milliseconds; once it returns True, the command is killed.
        interrupt: a function of the process number that is called likewise, and the signal to send once it returns True.

    Returns:
        Exit status, standard output and standard error.

    Raises:
        subprocess.TimeoutExpired: the command was killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("stdout", "stderr")]
        for stream in streams:
            stream.touch()
        process = _context.Process(target=_child, args=(list(command), cwd, {**os.environ, **(environment or {})}, streams))
        process.start()
        deadline = time.monotonic() + timeout
        while process.exitcode is None and time.monotonic() < deadline and not (until and until()):
            process.join(0.003 if until or interrupt else timeout)
            if interrupt and interrupt[0](process.pid):
                os.kill(process.pid, interrupt[1])
                interrupt = None
        late = process.exitcode is None
        if late:
            process.kill()
            process.join()
        stdout, stderr = (stream.read_text() for stream in streams)
    if late:
        raise subprocess.TimeoutExpired(list(command), timeout, stdout, stderr)
    return subprocess.CompletedProcess(list(command), process.exitcode, stdout, stderr)


def handles_signals(process: int) -> bool:
    """Whether a process has installed a handler of SIGTERM, as the commands do in their first lines."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:  # it has ended
        return False
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> (signal.SIGTERM - 1) & 1)


def copy_checkout(to: Path, *tests: str) -> None:
    """Copy what train.py needs, and folders of tests, into a folder where a test adds modules."""
    for name in ("cfg", "datasets", "src", *tests):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train.py", "pyproject.toml", "tests/conftest.py"):
        shutil.copy(ROOT / name, to / name)


def run_in_copy(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``python ARGUMENTS`` in a copy of the checkout, in a process of its own that imports the copy's modules."""
    environment = {**os.environ, "PYTHONPATH": str(copy / "src")}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=copy, env=environment, check=False)


def _child(command: list[str], cwd: Path, environment: dict[str, str], streams: list[Path]) -> None:
    for descriptor, stream in zip((1, 2), streams, strict=True):
        os.dup2(os.open(stream, os.O_WRONLY), descriptor)
    with ExitStack() as end:
        end.callback(sys.stderr.flush)
        end.callback(sys.stdout.flush)
        end.callback(atexit._run_exitfuncs)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(cwd)
        np.random.seed()  # noqa: NPY002
        multiprocessing.set_start_method("fork", force=True)  # the default of a process that starts afresh
        sys.path = [path for path in sys.path if Path(path) != ROOT]
        if command[0] == "-m":
            sys.argv = command[1:]
            sys.path.insert(0, str(cwd))
            runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        else:
            script = ROOT / command[0]
            sys.argv = command
            sys.path.insert(0, str(script.parent))
            runpy.run_path(str(script), run_name="__main__")
