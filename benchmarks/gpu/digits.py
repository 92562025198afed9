"""MNIST where it can be found, else digits of the same shape made from a seed."""

import os
from pathlib import Path

import numpy as np

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
ROOT = Path(__file__).parents[2]


def data_folder(folder: Path, smoke: bool = False) -> tuple[Path, str]:
    """Return a folder that ``dataset.data_dir`` can name, and what is in it.

    MNIST is looked for where SEQMEM_DATA points, in ``data`` of the checkout and beside the checkout.

    Args:
        folder: made digits are written below it.
        smoke: use few made digits.
    """
    places = [Path(os.environ.get("SEQMEM_DATA") or "data"), ROOT / "data", ROOT.parent / "data", ROOT / "shared" / "data"]
    for place in [] if smoke else places:
        if all((place / "MNIST" / "raw" / name).is_file() for name in FILES):
            return place, "MNIST"
    return made(folder / "digits", *((300, 100) if smoke else (60_000, 10_000))), "made digits of MNIST's shape, not MNIST"


def made(folder: Path, training: int, test: int) -> Path:
    """Write images of ten classes in MNIST's format: smooth random shapes, shifted and with noise.

    Args:
        folder: has ``MNIST/raw/`` afterwards.
        training: number of training images.
        test: number of test images.
    """
    random = np.random.default_rng(0)
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    coarse = random.normal(size=(10, 7, 7))
    shapes = np.clip(np.kron(coarse, np.ones((4, 4))), 0, None)
    shapes = np.round(255 * shapes / shapes.max()).astype(np.int16)
    for count, (images_name, labels_name) in ((training, FILES[:2]), (test, FILES[2:])):
        labels = random.integers(0, 10, count, dtype=np.uint8)
        shifts = random.integers(-2, 3, (count, 2))
        images = np.empty((count, 28, 28), dtype=np.uint8)
        for k in range(count):
            shifted = np.roll(shapes[labels[k]], shifts[k], (0, 1))
            images[k] = np.clip(shifted + random.integers(0, 60, (28, 28), dtype=np.int16), 0, 255)
        (raw / images_name).write_bytes(_header(images) + images.tobytes())
        (raw / labels_name).write_bytes(_header(labels) + labels.tobytes())
    return folder


def _header(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">i4").tobytes()
