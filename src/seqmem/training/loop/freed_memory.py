"""Memory that one training step frees and the next one takes stays with the process.

Left to itself the allocator of glibc gives what is free at the end of its heap back to the system, which clears every page anew
for the next step: up to a third of a small model's step. Elsewhere than on Linux nothing changes.
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_kept = 1 << 30  # bytes at the end of the heap
_mapped = 1 << 25  # a larger block is no part of the heap and goes back at once; the most that the allocator comes to by itself
_trim_threshold, _mmap_threshold = -1, -3  # of mallopt(3)
_chosen_by_user = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")
_lock = Lock()
_inside = 0  # blocks that keep memory, in any thread


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep what is freed, in blocks of up to 32 MiB, until the block ends: at most 1 GiB at the end of the heap.

    Nests. Where the environment says how memory is handled (``MALLOC_TRIM_THRESHOLD_`` for one), it is handled so.
    """
    libc = None if any(name in os.environ for name in _chosen_by_user) else _glibc()
    if libc is None:
        yield
        return
    _enter(libc)
    try:
        yield
    finally:
        _leave(libc)


def _enter(libc: ctypes.CDLL) -> None:
    global _inside
    with _lock:
        _inside += 1
        if _inside == 1:
            libc.mallopt(_mmap_threshold, _mapped)
            libc.mallopt(_trim_threshold, _kept)


def _leave(libc: ctypes.CDLL) -> None:
    global _inside
    with _lock:
        _inside -= 1
        if _inside == 0:
            libc.mallopt(_trim_threshold, 2 * _mapped)  # as by itself
            libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if all(hasattr(libc, name) for name in ("gnu_get_libc_version", "mallopt", "malloc_trim")) else None
