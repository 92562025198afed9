"""A process that trains one trial of a command, and sends its parent what it prints and its outcome."""

import io
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from select import select
from threading import Lock, Thread
from typing import Any

import torch

from seqmem.errors import UserError
from seqmem.io import interrupts, terminal
from seqmem.results.experiment import Experiment
from seqmem.training.engines.attempts import Attempt, one_by_one
from seqmem.training.loop import pruning
from seqmem.training.loop.recorder import peak_memory_mib
from seqmem.training.loop.splits import Data
from seqmem.training.loop.threads import set_threads


@dataclass(frozen=True)
class Trial:
    """A trial to train; the arguments of :func:`seqmem.training.engines.attempts.attempt`.

    Attributes:
        silent: what it prints is not shown.
    """

    config: Mapping[str, Any]
    data: Data
    experiment: Experiment
    seed: int
    wait: bool = False
    silent: bool = False

    @property
    def name(self) -> str:
        """Name of its process."""
        return f"{self.experiment.folder.name}/seed_{self.seed}"

    def awaited(self) -> "Trial":
        """Return the same trial, for which the lock of a different process is awaited."""
        return replace(self, wait=True)


@dataclass(frozen=True)
class Settings:
    """Settings that a process takes from its parent.

    Attributes:
        workers: trials at a time.
        threads: of the process; None for torch's default.
        in_terminal: the parent shows a line of each running trial in a terminal.
        command: the parent's ``sys.argv``, for the record.
        judged: the parent judges the trial after each epoch.
    """

    workers: int
    threads: int | None
    in_terminal: bool
    command: tuple[str, ...]
    judged: bool = False


def run(parent: Connection, inherited: Sequence[Connection], trial: Trial, settings: Settings) -> None:
    """Train a trial in this process, and send the parent messages: pairs of a kind and its content.

    Args:
        parent: the pipe to it.
        inherited: connections of the parent to close.
        trial: what to train.
        settings: see there.
    """
    os.setpgid(0, 0)  # out of the group that a terminal or timeout(1) sends signals to; the parent passes them on
    lock, outcome, sent = Lock(), None, False
    streams = _Lines("line", parent, lock), _Lines("error", parent, lock)
    interrupts.install_in_worker()
    while not sent:  # a signal may come before the trial begins, and after its end
        try:
            outcome = outcome or _outcome(parent, inherited, trial, settings, streams, lock)
            with interrupts.deferred():
                sent = True
                _send(parent, outcome, streams, lock)
        except interrupts.Interrupted:
            outcome = outcome or Attempt(
                trial.seed, failure=UserError(f"seed {trial.seed} was stopped; the same command resumes")
            )


def _outcome(
    parent: Connection,
    inherited: Sequence[Connection],
    trial: Trial,
    settings: Settings,
    streams: "tuple[_Lines, _Lines]",
    lock: Lock,
) -> Attempt:
    """Train a trial in this process; ``lock`` is held where something is sent to the parent."""
    for each in inherited:
        each.close()
    answers = SimpleQueue[bool]()
    Thread(target=_end_with_parent, args=(parent, answers), daemon=True).start()
    sys.stdout, sys.stderr = streams
    terminal.status_line = _Status(parent, lock) if settings.in_terminal else None
    pruning.judge = _Judge(parent, lock, answers) if settings.judged else None
    sys.argv = list(settings.command)
    if settings.threads is not None:
        set_threads(settings.threads)
    runner = {**trial.config["runner"], "workers": settings.workers}
    [outcome] = one_by_one({**trial.config, "runner": runner}, trial.data, trial.experiment, [trial.seed], trial.wait)
    return outcome


def _send(parent: Connection, outcome: Attempt, streams: "tuple[_Lines, _Lines]", lock: Lock) -> None:
    """Send the parent the rest of what was printed, the memory used, and the outcome."""
    for stream in streams:
        stream.finish()
    with lock:
        if torch.cuda.is_initialized():
            parent.send(("memory", _device_memory()))
        parent.send(("outcome", _sendable(outcome)))


def _device_memory() -> tuple[float, float, float]:
    """Return the device's memory in MiB that was free before the trial, the trial's peak, and this process's own peak."""
    free, _ = torch.cuda.mem_get_info()
    free_before = (free + torch.cuda.memory_reserved()) / 2**20
    return free_before, torch.cuda.max_memory_reserved() / 2**20, peak_memory_mib(torch.device("cpu"))


def _sendable(outcome: Attempt) -> Attempt:
    """Return an outcome whose failure can be pickled and has the traceback of this process as a note."""
    failure = outcome.failure
    if failure is None:
        return outcome
    try:
        pickle.loads(pickle.dumps(failure))
    except Exception:
        failure = RuntimeError(f"{type(failure).__name__}: {failure}").with_traceback(failure.__traceback__)
    failure.add_note("".join(traceback.format_exception(failure)))
    return replace(outcome, failure=failure)


def _end_with_parent(parent: Connection, answers: SimpleQueue[bool]) -> None:
    """Stop the trial when the parent asks for it, and end this process when the parent has ended, which closes the pipe."""
    try:
        while True:
            message = parent.recv()
            if isinstance(message, bool):
                answers.put(message)
            elif interrupts.received() is None:
                os.kill(os.getpid(), signal.SIGTERM)
    except (EOFError, OSError):
        os._exit(1)


class _Judge:
    """Sends the parent the validation of an epoch, and waits for its answer, so that a trial stops after the same epoch."""

    def __init__(self, parent: Connection, lock: Lock, answers: SimpleQueue[bool]):
        self._parent, self._lock, self._answers = parent, lock, answers

    def __call__(self, epochs: int, value: float, is_last: bool) -> bool:
        """Return whether to stop; not after a signal, which stops the trial itself."""
        with self._lock:
            self._parent.send(("epoch", (epochs, value, is_last)))
        while interrupts.received() is None:
            with suppress(Empty):
                return self._answers.get(timeout=0.2)
        return False


class _Status:
    """Sends the parent the status line of the trial."""

    def __init__(self, parent: Connection, lock: Lock):
        self._parent, self._lock = parent, lock

    def __call__(self, text: str) -> None:
        """Send the line, unless the parent is busy and the pipe is full."""
        with self._lock:
            if select([], [self._parent], [], 0)[1]:
                self._parent.send(("status", text))


class _Lines(io.TextIOBase):
    """A stream of text that sends the parent whole lines, so that lines of different trials do not mix."""

    def __init__(self, kind: str, parent: Connection, lock: Lock):
        self._kind, self._parent, self._lock = kind, parent, lock
        self._rest = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        self._send(lines)
        return len(text)

    def flush(self) -> None:
        """Keep an unfinished line until its end."""

    def finish(self) -> None:
        """Send an unfinished line."""
        rest, self._rest = self._rest, ""
        self._send([rest] if rest else [])

    def _send(self, lines: Sequence[str]) -> None:
        if lines:
            with self._lock:
                self._parent.send((self._kind, "\n".join(lines)))
