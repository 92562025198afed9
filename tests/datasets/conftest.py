"""A tiny MNIST in the real layout, and every data set at a size that loads at once."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

import datasets
from seqmem.errors import UserError

CONFIGURATIONS = Path(__file__).parents[2] / "cfg" / "dataset"


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture(scope="session")
def tiny_mnist_arrays() -> dict[str, np.ndarray]:
    """37 training and 11 test images of noise, no two alike."""
    random = np.random.default_rng(0)
    return {
        "train-images-idx3-ubyte": random.integers(0, 256, (37, 28, 28), dtype=np.uint8),
        "train-labels-idx1-ubyte": random.integers(0, 10, 37, dtype=np.uint8),
        "t10k-images-idx3-ubyte": random.integers(0, 256, (11, 28, 28), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": random.integers(0, 10, 11, dtype=np.uint8),
    }


@pytest.fixture
def tiny_mnist(tmp_path, tiny_mnist_arrays) -> Path:
    """A data folder with ``MNIST/raw/`` in it."""
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, array in tiny_mnist_arrays.items():
        (raw / name).write_bytes(idx_bytes(array))
    return tmp_path / "data"


@pytest.fixture
def configuration(monkeypatch) -> Callable[[str], dict]:
    """The arguments that the YAML of a data set gives it."""
    monkeypatch.delenv("SEQMEM_DATA", raising=False)

    def read(name: str) -> dict:
        return OmegaConf.to_container(OmegaConf.load(CONFIGURATIONS / f"{name}.yaml"), resolve=True)

    return read


@pytest.fixture
def load_small(configuration, tiny_mnist) -> Callable[..., datasets.DataSet]:
    """Load a data set by name, cut down to a few samples where it takes ``..._samples``."""

    def load(name: str, **overrides) -> datasets.DataSet:
        arguments = configuration(name)
        small = {key: 23 for key in arguments if key.endswith("_samples")}
        files = {"data_dir": str(tiny_mnist)} if name == "mnist" else {}
        try:
            return datasets.load(arguments | small | files | overrides)
        except UserError as error:
            if "data_dir" in arguments and not files:
                pytest.skip(f"{name} has no files here: {error}")
            raise

    return load
