"""Runs this project's commands as a user would, without waiting for torch and Lightning to be imported for each.

A process that has imported them once is forked for each command: arguments, folder, environment, streams and exit status are
the command's own.
"""

import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).parents[1]

_context = get_context("forkserver")
_context.set_forkserver_preload(
    ["hydra", "pytorch_lightning", "sklearn.datasets", "matplotlib.pyplot", "seqmem.training", "seqmem.results"]
)


def run(
    command: Sequence[str], cwd: Path, environment: dict[str, str] | None = None, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """Run ``python COMMAND...``, a script or ``-m`` and a module, and wait for its end.

    Args:
        command: what follows ``python``; a script's path is relative to the checkout.
        cwd: folder to run it in.
        environment: variables to set beside those of this process.
        timeout: seconds after which it is killed.

    Returns:
        Exit status, standard output and standard error.

    Raises:
        subprocess.TimeoutExpired: the command was still running after ``timeout`` seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("stdout", "stderr")]
        process = _context.Process(target=_child, args=(list(command), cwd, {**os.environ, **(environment or {})}, streams))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(list(command), timeout)
        stdout, stderr = (stream.read_text() for stream in streams)
    return subprocess.CompletedProcess(list(command), process.exitcode, stdout, stderr)


def _child(command: list[str], cwd: Path, environment: dict[str, str], streams: list[Path]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for descriptor, stream in zip((1, 2), streams, strict=True):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT), descriptor)
    try:
        if command[0] == "-m":
            sys.argv = command[1:]
            runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = command
            sys.path.insert(0, str(ROOT))
            runpy.run_path(str(ROOT / command[0]), run_name="__main__")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
