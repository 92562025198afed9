"""Markers for long tests and for tests of a device, and where the tests find data."""

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch

# As in `make test`, before torch reads it: with more threads, sweeps would train several trials at a time by default.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_long = {"slow": "takes minutes", "browser": "needs a headless Chromium", "cluster": "starts worker processes"}


def device_name() -> str:
    """Return the device of tests marked gpu: SEQMEM_TEST_DEVICE, else cuda where there is one, else an empty string."""
    import torch

    return os.environ.get("SEQMEM_TEST_DEVICE") or ("cuda" if torch.cuda.is_available() else "")


def pytest_addoption(parser: pytest.Parser) -> None:
    for marker, why in _long.items():
        parser.addoption(f"--run-{marker}", action="store_true", help=f"run the tests marked {marker} ({why})")


def pytest_configure() -> None:
    """Let Ctrl-C act: a shell starts a command in the background with the signal ignored, and its processes inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # The first worker gets the first tests: it alone starts the process from which tests/program.py forks commands, and the
    # one that interprets kernels (tests/ops/gpu/interpreted.py).
    items.sort(key=lambda item: not any(hasattr(getattr(item, "module", None), name) for name in ("program", "checked")))
    for marker, why in _long.items():
        if not config.getoption(f"--run-{marker}"):
            skip = pytest.mark.skip(reason=f"{why}; run with --run-{marker} or make test-all")
            for item in items:
                if item.get_closest_marker(marker):
                    item.add_marker(skip)
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu and not device_name():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device; SEQMEM_TEST_DEVICE=cpu runs it on the CPU"))


def pytest_collection_finish() -> None:
    """Take the modules and the collected tests out of garbage collection, which would visit them again in each test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def same_signal_handlers() -> Iterator[None]:
    """A test leaves Ctrl-C and SIGTERM as they were, for the tests after it in the same process."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in signals]
    yield
    after = [signal.getsignal(number) for number in signals]
    for number, handler in zip(signals, before, strict=True):
        signal.signal(number, handler)
    assert after == before


@pytest.fixture(scope="session")
def device() -> "torch.device":
    """The device of tests marked gpu."""
    import torch

    return torch.device(device_name())


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The folder that holds MNIST/raw, where SEQMEM_DATA points."""
    folder = Path(os.environ.get("SEQMEM_DATA", "data"))
    if not (folder / "MNIST" / "raw" / "train-images-idx3-ubyte").exists():
        pytest.skip("MNIST is not where SEQMEM_DATA points")
    return folder
