"""Memory that one training step frees stays with the process for the next step.

Otherwise the allocator of the C library returns it to the system, which clears every page again for the next step. That takes
up to a fifth of a step. The compiled operators contain the allocator (``csrc/kept_memory.cpp``); without them nothing changes.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from seqmem.io import mkl
from seqmem.ops import extension

_settings = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep the memory of tensors of at least 1 MiB that are freed, until the block ends (Linux).

    Tensors and kept memory take at most 9/8 of the most that such tensors took at a time. A tensor may outlive the block. It
    nests, also in other threads; a forked process starts without kept memory. An environment that configures the allocator
    (``MALLOC_TRIM_THRESHOLD_``, for example) wins, and so does a preloaded library other than that of :mod:`seqmem.io.mkl`.
    """
    if extension.REASON or _chosen_by_user():
        yield
        return
    torch.ops.seqmem.keep_memory()
    try:
        yield
    finally:
        torch.ops.seqmem.release_memory()


def _chosen_by_user() -> bool:
    return any(map(os.environ.get, _settings)) or not all(map(mkl.is_ours, mkl.preloaded()))
