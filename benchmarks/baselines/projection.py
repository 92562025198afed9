"""Sequential projection kernel of ``projection.cpp``, compiled at the first use."""

import ctypes
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor


def project(signal: Tensor, order: int) -> Tensor:
    """LegS coefficients (N,) of a signal (T,), float32 or float64, on one thread."""
    coefficients = signal.new_empty(order)
    function = getattr(_library(), "project_float" if signal.dtype == torch.float32 else "project_double")
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    function(pointer(signal.data_ptr()), integer(len(signal)), integer(order), pointer(coefficients.data_ptr()))
    return coefficients


@cache
def _library() -> ctypes.CDLL:
    source = Path(__file__).with_suffix(".cpp")
    target = Path(tempfile.mkdtemp()) / "projection.so"
    subprocess.run(["g++", "-O3", "-shared", "-fPIC", "-o", str(target), str(source)], check=True)
    return ctypes.CDLL(str(target))
