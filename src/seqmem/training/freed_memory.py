"""Memory that one training step frees and the next one takes stays with the process.

Left to itself the allocator of glibc gives large blocks back to the system, which clears every page of them anew for the next
step: up to a third of a small model's step. Elsewhere than on Linux nothing changes.
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_kept = 1 << 30  # bytes: what is freed beyond that goes back; larger blocks always do
_usual = 1 << 25  # the most that the allocator comes to by itself where large blocks are freed
_trim_threshold, _mmap_threshold = -1, -3  # of mallopt(3)
_chosen_by_user = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep up to 1 GiB of freed memory until the block ends; where the environment says how memory is handled, as it says."""
    libc = None if any(name in os.environ for name in _chosen_by_user) else _glibc()
    if libc is None:
        yield
        return
    _set(libc, _kept, _kept)
    try:
        yield
    finally:
        _set(libc, _usual, 2 * _usual)
        libc.malloc_trim(0)


def _set(libc: ctypes.CDLL, mapped: int, trimmed: int) -> None:
    libc.mallopt(_mmap_threshold, mapped) or libc.mallopt(_mmap_threshold, _usual)  # older ones take no more
    libc.mallopt(_trim_threshold, trimmed)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if all(hasattr(libc, name) for name in ("gnu_get_libc_version", "mallopt", "malloc_trim")) else None
