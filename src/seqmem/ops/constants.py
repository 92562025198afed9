"""Tensors that depend on settings alone and are kept for later calls."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import wraps
from threading import Lock
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result", bound=Any)
Constants = TypeVar("Constants", bound=Tensor | tuple[Tensor, ...])

MAX_BYTES = 2**29
"""Upper limit of the memory of all constants of :func:`on_device` on one device; one larger constant is kept alone."""


def constant(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorate a function of settings to compute ordinary CPU tensors, whatever the caller does.

    It runs in a thread of its own. A default device, inference mode, autocast, the fake tensors of torch.export and the
    transforms of torch.func belong to a thread, and would otherwise persist in the tensors.
    """

    @wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(function, *args, **kwargs).result()

    return call


def on_device(function: Callable[Arguments, Constants]) -> Callable[Concatenate[Tensor, Arguments], Constants]:
    """Decorate a function of settings to return its tensors on a device, computed and copied there once::

        @on_device
        def generators(measure: str, order: int) -> Tensor: ...  # float64 on the CPU

        rows = generators(memory, "legs", 64)  # in the type and on the device of memory

    The decorated function takes a tensor before the settings, which must be positional and hashable: a complex or
    floating-point result has the tensor's precision, and all results are on its device. Without a device, for example for a
    fake tensor, they are fake too. They are shared by all callers: do not change them in place. The latest used ones are kept
    within :data:`MAX_BYTES`. In torch.compile and torch.export they are constants of the program.
    """

    @torch.compiler.assume_constant_result
    def stored(device: torch.device, dtype: torch.dtype, settings: tuple[Any, ...]) -> Constants:
        return _store.get(function, settings, device, dtype)

    @wraps(function)
    def call(like: Tensor, *settings: Any) -> Constants:
        mode = None if torch.compiler.is_compiling() else getattr(like, "fake_mode", None)
        if mode is not None and not mode.allow_non_fake_inputs:
            host = stored(torch.device("cpu"), torch.float64, settings)
            with mode:
                return _each(lambda value: _cast(mode.from_tensor(value), like.device, like.dtype), host)
        return stored(like.device, like.dtype, settings)

    return call  # type: ignore[return-value]


@contextmanager
def collected() -> Iterator[list[Tensor]]:
    """Collect the constants that :func:`on_device` returns in any thread meanwhile, for a CUDA graph that reads them later."""
    found: list[Tensor] = []
    _store.collectors.append(found)
    try:
        yield found
    finally:
        _store.collectors[:] = [collector for collector in _store.collectors if collector is not found]


def nbytes(values: Iterable[Tensor]) -> int:
    """Return the bytes of the elements of tensors."""
    return sum(value.nbytes for value in values)


class _Store:
    """Constants by function, settings, device and type, the latest used ones last."""

    def __init__(self) -> None:
        self.collectors: list[list[Tensor]] = []
        self._values: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._lock = Lock()

    def get(self, function: Callable[..., Any], settings: tuple[Any, ...], device: torch.device, dtype: torch.dtype) -> Any:
        key = (function, settings, device, dtype)
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
        if value is None:
            value = _computed(function, settings, device, dtype)
            with self._lock:
                self._values[key] = value
                self._drop_oldest(device)
        for collector in list(self.collectors):
            collector.extend(_tensors(value))
        return value

    def _drop_oldest(self, device: torch.device) -> None:
        sizes = {key: _storage_bytes(value) for key, value in self._values.items() if key[2] == device}
        excess = sum(sizes.values()) - MAX_BYTES
        for key, size in list(sizes.items())[:-1]:
            if excess <= 0:
                return
            del self._values[key]
            excess -= size


_store = _Store()


@constant
def _computed(function: Callable[..., Any], settings: tuple[Any, ...], device: torch.device, dtype: torch.dtype) -> Any:
    return _each(lambda value: _cast(value, device, dtype), function(*settings))


def _cast(value: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    if value.is_complex():
        return value.to(device, dtype.to_complex())
    return value.to(device, dtype) if value.is_floating_point() else value.to(device)


def _each(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    return function(value) if isinstance(value, Tensor) else tuple(function(part) for part in value)


def _tensors(value: Any) -> tuple[Tensor, ...]:
    return (value,) if isinstance(value, Tensor) else value


def _storage_bytes(value: Any) -> int:
    """Return what the storages of constants hold, also where a constant is a part of its storage."""
    return sum(part.untyped_storage().nbytes() for part in _tensors(value))
