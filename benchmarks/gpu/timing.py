"""Time and memory of a call on a device."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

PRECISIONS = ("bf16", "tf32", "float32")
"""Number formats of products: autocast to bfloat16, TF32, and strict float32."""


class Timing(NamedTuple):
    """Repeated calls.

    Attributes:
        seconds: median time of a call.
        calls: their number.
        first: time of the first call, with compilation and capture.
        peak_mib: most memory allocated during the calls, beyond what was allocated before; None on the CPU.
    """

    seconds: float
    calls: int
    first: float
    peak_mib: float | None


def timed(call: Callable[[], Any], device: str, seconds: float, most: int = 50) -> Timing:
    """Time a call.

    Args:
        call: what is measured; its work on the device need not be finished when it returns.
        device: cuda, timed by events, or cpu.
        seconds: time of the repetitions, after a first call and one to warm up. There are at least three.
        most: most repetitions.
    """
    begun = time.perf_counter()
    call()
    synchronize(device)
    first = time.perf_counter() - begun
    before = 0
    if device == "cuda":
        gc.collect()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    call()
    synchronize(device)
    peak = (torch.cuda.max_memory_allocated() - before) / 2**20 if device == "cuda" else None
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < most and (len(times) < 3 or time.perf_counter() - begun < seconds):
        times.append(_once(call, device))
        if sum(times) > 4 * seconds:
            break
    return Timing(statistics.median(times), len(times), first, peak)


def synchronize(device: str) -> None:
    """Wait until the device has finished."""
    if device == "cuda":
        torch.cuda.synchronize()


def _once(call: Callable[[], Any], device: str) -> float:
    if device != "cuda":
        begun = time.perf_counter()
        call()
        return time.perf_counter() - begun
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


@contextmanager
def products(precision: str) -> Iterator[None]:
    """Multiply float32 in TF32 in this context if the number format is tf32, else strictly."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def free_memory(device: str) -> None:
    """Return what nothing refers to any more to the device."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
