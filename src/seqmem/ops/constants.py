"""Tensors that depend on settings alone and are kept for later calls."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


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
