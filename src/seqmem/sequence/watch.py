"""Watch a function run once, for operations that a CUDA graph cannot capture."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

_READS = frozenset(("aten::linalg_matrix_exp", "aten::_linalg_check_errors"))
"""Operations that read values on the host, beside those that torch marks."""


@contextmanager
def watched() -> Iterator[list[str]]:
    """Collect why a CUDA graph could not repeat what runs in this context: one reason for each such operation.

    A graph would repeat the random numbers of its capture. An operation that reads values on the host, or copies between host
    and device, waits for the device, which is not allowed in a capture.
    """
    found: list[str] = []
    with _watch_class()(found):
        yield found


@contextmanager
def kept_random_numbers(device: torch.device) -> Iterator[None]:
    """Let later random numbers of the CPU and of a device be the same as without this context."""
    on_gpu = device.type == "cuda" and torch.cuda.is_initialized()
    before = torch.get_rng_state(), torch.cuda.get_rng_state(device) if on_gpu else None
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        if before[1] is not None:
            torch.cuda.set_rng_state(before[1], device)


@cache
def _watch_class() -> type:
    from torch.utils._python_dispatch import TorchDispatchMode  # private to torch, and needed on a GPU alone

    class Watch(TorchDispatchMode):
        def __init__(self, found: list[str]):
            super().__init__()
            self.found = found

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            reason = _reason(func, args, result)
            if reason:
                self.found.append(f"{reason} ({func.name()})")
            return result

    return Watch


def _reason(operation: Any, arguments: tuple[Any, ...], result: Any) -> str:
    tags, name = operation.tags, operation.name().partition(".")[0]
    if torch.Tag.nondeterministic_seeded in tags:
        return "draws random numbers"
    if name in _READS or torch.Tag.data_dependent_output in tags or _has_open_shape(tags, name, arguments):
        return "reads values on the host"
    if name in ("aten::_to_copy", "aten::copy_"):
        source = arguments[0] if name == "aten::_to_copy" else arguments[1]
        if source.device.type != result.device.type:
            return f"copies from {source.device.type} to {result.device.type}"
    if name == "aten::lift_fresh" and result.device.type != "cpu":  # torch.tensor(..., device="cuda") shows no copy
        return f"copies from cpu to {result.device.type}"
    return ""


def _has_open_shape(tags: Any, name: str, arguments: tuple[Any, ...]) -> bool:
    """Return whether values determine the shape of the result, as those of a mask that selects."""
    if name in ("aten::index", "aten::index_put", "aten::index_put_"):
        return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in arguments[1])
    return torch.Tag.dynamic_output_shape in tags
