"""Tiny MNIST, pen strokes, reviews and text in the real layout, and every data set at a size that loads at once."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from seqmem import datasets
from seqmem.data.text import ALPHABET
from seqmem.errors import UserError
from tests.serving import serving
from tests.tiny_files import idx_bytes, write_archive, write_ts

CONFIGURATIONS = Path(__file__).parents[2] / "cfg" / "dataset"


@pytest.fixture(scope="session")
def tiny_strokes() -> list[tuple[np.ndarray, str]]:
    """67 series (T, 3) of noise, T from 4 to 11, each with one of 3 letters."""
    random = np.random.default_rng(0)
    lengths = [11, *random.integers(4, 12, 66)]
    letters = ["7", "20", "3", *random.choice(["7", "20", "3"], 64)]
    scales = np.array([1.0, 20.0, 0.05])
    return [
        (scales * (1 + random.normal(size=(length, 3))), str(letter)) for length, letter in zip(lengths, letters, strict=True)
    ]


@pytest.fixture
def tiny_ct(tmp_path, tiny_strokes) -> Path:
    """A data folder with ``CharacterTrajectories/`` in it."""
    for part, strokes in {"TRAIN": tiny_strokes[:31], "TEST": tiny_strokes[31:]}.items():
        write_ts(tmp_path / "data", "CharacterTrajectories", part, [(values.T, letter) for values, letter in strokes])
    return tmp_path / "data"


@pytest.fixture(scope="session")
def tiny_mnist_arrays() -> dict[str, np.ndarray]:
    """37 training and 11 test images of noise, all different."""
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


@pytest.fixture(scope="session")
def tiny_scifar_batches() -> dict[str, dict]:
    """Five batches of six training images and one of six test images of noise, all different."""
    random = np.random.default_rng(0)
    return {
        name: {"data": random.integers(0, 256, (6, 3072), dtype=np.uint8), "labels": random.integers(0, 10, 6).tolist()}
        for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
    }


@pytest.fixture
def tiny_scifar(tmp_path, tiny_scifar_batches) -> Path:
    """A data folder with ``cifar-10-batches-py/`` in it."""
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, batch in tiny_scifar_batches.items():
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    return tmp_path / "data"


@pytest.fixture(scope="session")
def tiny_reviews() -> dict[str, str]:
    """41 training and 11 test reviews of 2 to 30 words from 50, all different, by their paths."""
    random = np.random.default_rng(0)
    words = [f"word{number}" for number in range(50)]
    reviews = {}
    for group, count in {"train/pos": 21, "test/neg": 6, "train/neg": 20, "test/pos": 5}.items():
        for number in range(count):
            chosen = random.choice(words, random.integers(2, 31))
            reviews[f"aclImdb/{group}/{number}_{random.integers(1, 11)}.txt"] = f"{' '.join(chosen)} in {group} {number}."
    return reviews


@pytest.fixture
def tiny_imdb(tmp_path, tiny_reviews) -> Path:
    """A data folder with ``aclImdb_v1.tar.gz`` in it."""
    write_archive(tmp_path / "data", {path: text.encode() for path, text in tiny_reviews.items()})
    return tmp_path / "data"


@pytest.fixture(scope="session")
def tiny_text() -> str:
    """6007 characters of the 27 symbols, no two long substrings equal."""
    return "".join(np.random.default_rng(0).choice(list(ALPHABET), 6007)).replace("  ", "xy")


@pytest.fixture
def tiny_text8(tmp_path, tiny_text) -> Path:
    """A data folder with ``text8/text8`` in it."""
    path = tmp_path / "data" / "text8" / "text8"
    path.parent.mkdir(parents=True)
    path.write_text(tiny_text)
    return tmp_path / "data"


@pytest.fixture
def tiny_table(tmp_path) -> Path:
    """A table of 41 series of 3 to 7 steps of noise, each with one of 2 labels."""
    random = np.random.default_rng(0)
    lines = ["id,x,y,label"]
    for number in range(41):
        for _ in range(random.integers(3, 8)):
            lines.append(f"{number},{random.normal()},{random.normal()},{'ab'[number % 2]}")
    path = tmp_path / "own.csv"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of the test's own: the folder of its files, and its URL."""
    monkeypatch.setenv("no_proxy", "*")
    with serving(tmp_path / "served") as url:
        yield tmp_path / "served", url


@pytest.fixture
def configuration(monkeypatch) -> Callable[[str], dict]:
    """The arguments in the YAML of a data set."""
    monkeypatch.delenv("SEQMEM_DATA", raising=False)

    def read(name: str) -> dict:
        return OmegaConf.to_container(OmegaConf.load(CONFIGURATIONS / f"{name}.yaml"), resolve=True)

    return read


@pytest.fixture
def load_small(configuration, request) -> Callable[..., datasets.DataSet]:
    """Load a data set by name, with 23 samples if it takes ``..._samples`` and about 50 steps if it takes ``length``."""
    folders = {
        "mnist": "tiny_mnist",
        "ct": "tiny_ct",
        "uea": "tiny_ct",
        "imdb": "tiny_imdb",
        "text8": "tiny_text8",
        "scifar": "tiny_scifar",
    }

    def load(name: str, preparation: dict | None = None, **overrides) -> datasets.DataSet:
        arguments = configuration(name)
        few = {"length": 50, "min_length": 40, "frequency": 5}
        small = {key: 23 for key in arguments if key.endswith("_samples")} | {key: few[key] for key in arguments if key in few}
        files = {"data_dir": str(request.getfixturevalue(folders[name]))} if name in folders else {}
        if name == "uea":
            files["problem"] = "CharacterTrajectories"
        if name == "files":
            files["path"] = str(request.getfixturevalue("tiny_table"))
        if name == "text":
            files["path"] = str(request.getfixturevalue("tiny_text8") / "text8" / "text8")
        try:
            return datasets.load(arguments | small | files | overrides, preparation)
        except UserError as error:
            if "data_dir" in arguments and not files:
                pytest.skip(f"{name} has no files here: {error}")
            raise

    return load
