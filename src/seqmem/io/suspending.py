"""Ctrl-Z and ``fg``: the worker processes of a command stop and continue with it.

Workers are in process groups of their own, so that a Ctrl-C of the terminal reaches the command alone. Ctrl-Z then does not
reach them either, and this module passes it on.
"""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from threading import current_thread, main_thread
from types import FrameType


@contextmanager
def suspended_together(processes: Callable[[], Iterable[int]]) -> Iterator[None]:
    """Stop other processes when SIGTSTP stops this one within the block, and continue them with it.

    Does nothing outside of the main thread, which alone gets signals, and if the signal is ignored.

    Args:
        processes: returns the process numbers of those that run.
    """
    if current_thread() is not main_thread() or not hasattr(signal, "SIGTSTP"):
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTSTP, signal.SIGCONT)}
    if before[signal.SIGTSTP] == signal.SIG_IGN:  # by a shell without job control
        yield
        return

    own = os.getpid()  # a forked process inherits the handlers

    def suspend(number: int, frame: FrameType | None) -> None:
        if os.getpid() == own:
            _send(processes(), signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)

    def resume(number: int, frame: FrameType | None) -> None:
        if os.getpid() == own:
            _send(processes(), signal.SIGCONT)

    signal.signal(signal.SIGTSTP, suspend)
    signal.signal(signal.SIGCONT, resume)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, signal.SIG_DFL if handler is None else handler)


def _send(processes: Iterable[int], number: int) -> None:
    for process in processes:
        with suppress(OSError):  # it has ended
            os.kill(process, number)
