"""Whether this process can run Triton kernels, and the warning if CUDA tensors take the reference instead."""

import warnings
from importlib.metadata import version
from importlib.util import find_spec

import torch

from seqmem.ops import extension

HAS_TRITON = find_spec("triton") is not None
INSTALL = "install it with `pip install triton`"


def fallback_reason() -> str:
    """Return why CUDA tensors take the reference, or an empty string. The compiled library is not needed."""
    if extension.FORCED:
        return extension.REASON
    return "" if HAS_TRITON else "Triton is not installed"


def path() -> str:
    """Describe how CUDA tensors are computed, for ``python -m seqmem.ops``."""
    found = f"{torch.cuda.device_count()} here" if torch.cuda.is_available() else "none here"
    reason = fallback_reason()
    if not reason:
        return f"{found}; memory updates and projections by kernels of Triton {version('triton')}"
    return f"{found}; reference ({reason}{'' if extension.FORCED else f'; {INSTALL}'})"


def warn_once() -> None:
    """Warn once that CUDA tensors take the reference, unless it was requested."""
    global _warned
    reason = fallback_reason()
    if reason and not extension.FORCED and not _warned and not torch.compiler.is_compiling():
        _warned = True
        warnings.warn(
            f"the slower reference operators are in use for CUDA tensors: {reason}; {INSTALL}",
            extension.ReferenceWarning,
            stacklevel=3,
        )


_warned = False
