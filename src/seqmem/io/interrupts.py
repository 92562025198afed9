"""Ctrl-C and SIGTERM: one line, exit status 130 or 143, and time for a training to save its checkpoint.

Python raises KeyboardInterrupt wherever the program is. Some libraries turn it into a different error or status there, and an
exception in a destructor is lost. The handlers of this module therefore note the signal, so that every later error is known to
be its consequence, and raise :class:`Interrupted` only where a command can stop.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType
from typing import Any, NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_repeated_within = 1.0  # seconds; timeout(1), make and job schedulers send one signal twice


class Interrupted(BaseException):
    """A Ctrl-C or SIGTERM. Not a KeyboardInterrupt, at which Lightning exits with status 1 and disables Ctrl-C."""


@dataclass
class _State:
    """State of the handlers.

    Attributes:
        process: that installed them; a forked worker inherits them. None without handlers.
        received: the first signal.
        since: its time, in seconds of the monotonic clock.
        unwinding: depth of :func:`unwinding`.
        deferred: depth of :func:`deferred`.
        pass_on: called with a signal that is deferred.
        worker: the process does jobs of a different one, which reports the signal.
        write_by: takes lines of the handlers where something is drawn on the terminal; None to write them at once.
        last: written before a line that ends the process, to restore the terminal.
    """

    process: int | None = None
    received: int | None = None
    since: float = 0.0
    unwinding: int = 0
    deferred: int = 0
    pass_on: Callable[[int], None] | None = None
    worker: bool = False
    write_by: Callable[[str], None] | None = None
    last: str = ""


_state = _State()


def install() -> None:
    """Handle both signals until the process ends, which they end at once, except within :func:`unwinding`.

    Call it before the imports of a command, which take seconds. A signal that the process was started to ignore is ignored.
    """
    _begin()


def install_in_worker() -> None:
    """Handle both signals as within :func:`unwinding` until the process ends; a second call does nothing.

    The first signal ends the job, and each further job raises at its beginning.
    """
    if _state.process != os.getpid() and current_thread() is main_thread():
        _begin()
        # A forked process has the depths of its parent.
        _state.unwinding, _state.deferred, _state.pass_on = 1, 0, None
        _state.worker = True


def in_worker() -> bool:
    """Return whether :func:`install_in_worker` was called in this process."""
    return _state.worker


def received() -> int | None:
    """Return the first signal that this process has received; None without one."""
    return _state.received


def status() -> int:
    """Return the exit status of an interrupted command: 128 plus the number of the signal."""
    return 128 + (_state.received or signal.SIGINT)


def note(number: int) -> None:
    """Note a signal that a different process has received for this one."""
    if _state.received is None:
        _state.received, _state.since = number, time.monotonic()


def raise_if_received() -> None:
    """Raise :class:`Interrupted` if there was a signal, even if a library has caught its first exception."""
    if _state.received is not None:
        raise Interrupted


@contextmanager
def unwinding() -> Iterator[None]:
    """Raise :class:`Interrupted` at a signal within the block, so that files and workers are closed."""
    _state.unwinding += 1
    try:
        yield
    finally:
        _state.unwinding -= 1


@contextmanager
def deferred(pass_on: Callable[[int], None] | None = None) -> Iterator[None]:
    """Only note the first signal within the block; a second one, at least a second later, acts at once.

    The block checks :func:`received`, and the end of the block raises :class:`Interrupted`.

    Args:
        pass_on: called with the first signal.
    """
    _state.deferred += 1
    before, _state.pass_on = _state.pass_on, pass_on
    try:
        yield
    finally:
        _state.deferred -= 1
        _state.pass_on = before
    raise_if_received()


def write_by(writer: Callable[[str], None] | None, last: str = "") -> None:
    """Let something that is drawn on the terminal write the line at a signal.

    Args:
        writer: takes the line, and writes it later; None to write it at once again.
        last: what restores the terminal before the process ends at once.
    """
    _state.write_by, _state.last = writer, last


def signal_children(number: int) -> None:
    """Send a signal to the child processes, where the system lists them."""
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            for child in path.read_text().split():
                os.kill(int(child), number)


@contextmanager
def handled() -> Iterator[None]:
    """Handle both signals within the block as :func:`unwinding`, and leave them to the former handlers at its end.

    So a Ctrl-C ends a program or a cell of a notebook with KeyboardInterrupt as usual, only later. Does nothing if the
    handlers are installed, or outside of the main thread, which alone gets signals.
    """
    if _state.process == os.getpid() or current_thread() is not main_thread():
        yield
        return
    before = _begin()
    try:
        with unwinding():
            yield
    finally:
        number = _state.received
        for each, handler in before.items():
            signal.signal(each, handler)
        _state.process, _state.received = None, None
        if number is not None:
            signal.raise_signal(number)


def _begin() -> dict[signal.Signals, Any]:
    """Install the handlers; return the former ones."""
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in _SIGNALS}
    _state.process, _state.received = os.getpid(), None
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, _handle)
    return before


def _handle(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _state.process:
        _end_worker(number)
        return
    first = _state.received is None
    if not first and time.monotonic() < _state.since + _repeated_within:
        return
    note(number)
    if _state.deferred and first:
        if not _state.worker:
            (_state.write_by or _write)(
                "interrupted: saves a checkpoint first; a second signal, at least a second later, ends at once\n"
            )
        if _state.pass_on:
            _state.pass_on(number)
    elif _state.unwinding:
        raise Interrupted
    else:
        _end()


def _end_worker(number: int) -> None:
    """Act in a forked process: a Ctrl-C reaches the whole group, and the parent process ends its workers."""
    if number == signal.SIGTERM:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _end() -> NoReturn:
    with suppress(Exception):  # the signal may have come within a write
        sys.stdout.flush()
    _write(f"{_state.last}error: interrupted\n")
    os._exit(status())


def _write(line: str) -> None:
    """Write to standard error without its buffer, within which the signal may have come."""
    with suppress(OSError):
        os.write(2, line.encode())
