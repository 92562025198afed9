"""The number of threads of this process, and of a trial that resumes.

Sums in a different order round differently. So a trial resumes with the number of threads with which it began, wherever the
machine has them, and its numbers are those of a trial that was never stopped.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from seqmem.errors import UserError
from seqmem.io.machine import usable_cores
from seqmem.results.record import RunFolder

_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def are_given() -> bool:
    """Return whether an environment variable sets the number of threads."""
    return any(os.environ.get(name) for name in _VARIABLES)


def set_threads(count: int) -> None:
    """Let torch, NumPy and processes that this one starts compute with ``count`` threads."""
    os.environ.update(dict.fromkeys(_VARIABLES, str(count)))
    threadpool_limits(count)
    torch.set_num_threads(count)


def to_resume_with(checkpoint: Path | None) -> int | None:
    """Return the number of threads with which a trial should resume; None to keep that of its process.

    Args:
        checkpoint: from which it resumes; None if it starts from the beginning.
    """
    before = _recorded(checkpoint)
    return None if before is None or are_given() or before > usable_cores() else before


@contextmanager
def as_before(checkpoint: Path | None, title: str) -> Iterator[None]:
    """Compute with the number of threads that trained up to a checkpoint, or print why not.

    Args:
        checkpoint: from which a trial resumes; None if it starts from the beginning.
        title: of the trial, in messages.
    """
    before, now = _recorded(checkpoint), torch.get_num_threads()
    if before is None or before == now:
        yield
    elif to_resume_with(checkpoint) is None:
        print(f"{title}: {_reason(before, now)}", file=sys.stderr, flush=True)
        yield
    else:
        print(f"{title}: resumes with {_threads(before)} as before, not with {now}", file=sys.stderr, flush=True)
        with _threads_of_process(before):
            yield


def _recorded(checkpoint: Path | None) -> int | None:
    """Return the number of threads in the record next to a checkpoint; None if it is not known, or for trials on a GPU."""
    if checkpoint is None:
        return None
    try:
        record = RunFolder(checkpoint.parent.parent).read_record()
    except (OSError, UserError):
        return None
    machine = record.get("machine")
    count = machine.get("threads") if isinstance(machine, dict) else None
    return count if str(record.get("backend")).startswith("cpu") and type(count) is int and count > 0 else None


def _reason(before: int, now: int) -> str:
    cores = usable_cores()
    mend = (
        f"this machine has {cores} core{'s' * (cores != 1)}"
        if before > cores
        else f"OMP_NUM_THREADS={before} resumes as it began"
    )
    return (
        f"resumes with {_threads(now)}, after {before} before; sums in a different order round differently, so its numbers "
        f"are not exactly those without a stop; {mend}"
    )


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count != 1)}"


@contextmanager
def _threads_of_process(count: int) -> Iterator[None]:
    """Set the number of threads, and restore it and the environment at the end of the block."""
    environment, threads = {name: os.environ.get(name) for name in _VARIABLES}, torch.get_num_threads()
    with threadpool_limits():  # restores the limits of all libraries
        set_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            for name, value in environment.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
