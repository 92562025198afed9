"""CIFAR-10 as sequences of pixels."""

import os
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from seqmem.arguments import checked
from seqmem.data import Batch, DataSet, DataSpec, Provenance, Seed, Split, label_of, random_split, sha256
from seqmem.datasets.cifar_batches import read_batches
from seqmem.errors import UserError
from seqmem.io.download import DownloadError, download_file, missing_files

ARCHIVE = "cifar-10-python.tar.gz"
MD5 = "c58f30108f718f92721af3b95e74349a"
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
FOLDER = "cifar-10-batches-py"

FILES = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
"""The md5 of each official file, as torchvision has it."""

MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
GREY_MEAN, GREY_DEVIATION = 122.6 / 255, 61.0 / 255
LUMA = (19595, 38470, 7471)
"""Weights of red, green and blue in a grey value: 0.299, 0.587 and 0.114 (ITU-R BT.601) in units of 2^-16, as in Pillow."""

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class SCIFAR(DataSet):
    """The 60,000 images of 32x32 pixels of CIFAR-10 (Krizhevsky, 2009), as sequences of 1,024 pixels.

    A step is a pixel, row by row: inputs are (B, 1024, 3), or (B, 1024, 1) in grey, standardised by the usual means and
    deviations of the training images; targets are (B,) of 10 classes. The 10,000 official test images are the test split; the
    validation split is a random part of the other 50,000, by default the same images as in S4's code. Other images under the
    names of these files are called "scifar other files" in tables.
    """

    name = "scifar"

    @checked
    def __init__(
        self,
        data_dir: str | Path = "data",
        grayscale: bool = False,
        validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1,
        split_seed: Seed = 42,
        train_samples: PositiveInt | None = None,
        num_workers: NonNegativeInt = 0,
    ):
        """Read the images and split them.

        Args:
            data_dir: folder with ``cifar-10-batches-py/``, as torchvision leaves it, or with ``cifar-10-python.tar.gz``, which
                is read without unpacking. Both are also found in ``cifar10/``, and the folder may be that of the files
                themselves. The archive is downloaded if none exists.
            grayscale: one channel, 0.299 red + 0.587 green + 0.114 blue, rounded to whole levels, instead of three.
            validation_fraction: fraction of the 50,000 training images for the validation split.
            split_seed: seed of that choice, by torch's generator; 42 is that of S4's code.
            train_samples: number of training images, a random part of the training split; None for all.
            num_workers: worker processes that make batches; 0 makes them in the main process.

        Raises:
            UserError: the files are missing and cannot be downloaded, are damaged or cannot be read, or there are fewer images
                than ``train_samples``.
        """
        batches = read_batches(_source(Path(os.path.expanduser(data_dir))), list(FILES))
        training, test = [batches[name] for name in FILES if name != "test_batch"], batches["test_batch"]
        images = np.concatenate([batch.images for batch in training])
        labels = np.concatenate([batch.labels for batch in training])
        train, validation = split_as_s4(len(images), validation_fraction, split_seed)
        if train_samples is not None and train_samples > len(train):
            raise UserError(
                f"dataset.train_samples: got {train_samples}, but scifar's training split has only {len(train)} images"
            )
        train = train[:train_samples]
        self._images = _pixels({"train": images[train], "validation": images[validation], "test": test.images})
        self._labels = {
            split: torch.from_numpy(array.astype(np.int64))
            for split, array in {"train": labels[train], "validation": labels[validation], "test": test.labels}.items()
        }
        self._grayscale = grayscale
        label = label_of(self.name, {name: batch.md5 for name, batch in batches.items()}, FILES)
        spec = DataSpec(
            f"{self.name} {label}".strip(),
            input_size=1 if grayscale else 3,
            output_size=len(CLASSES),
            task="classification",
            output_steps=0,
            max_length=32 * 32,
            class_names=CLASSES,
        )
        provenance = Provenance(
            split_seed,
            {"train": sha256(train), "validation": sha256(validation), "test": sha256(np.arange(len(test.images)))},
            files={f"{FOLDER}/{name}": batch.sha256 for name, batch in batches.items()},
        )
        super().__init__(spec, {split: len(array) for split, array in self._labels.items()}, provenance, num_workers)

    def batch(self, split: Split, indices: Tensor) -> Batch:
        """Return inputs (B, 1024, 3), or (B, 1024, 1) in grey, and targets (B,)."""
        pixels = self._images[split][indices]
        if self._grayscale:
            levels = ((pixels.int() * torch.tensor(LUMA, dtype=torch.int32)).sum(-1, keepdim=True) + 2**15) // 2**16
            return Batch((levels.float() / 255 - GREY_MEAN) / GREY_DEVIATION, self._labels[split][indices])
        values = pixels.float() / 255
        return Batch((values - torch.tensor(MEAN)) / torch.tensor(DEVIATION), self._labels[split][indices])


def split_as_s4(count: int, validation_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split 0 to ``count - 1`` as S4's code does: the last part of torch's permutation is the validation split.

    Returns:
        The indices for training and those for validation, int64.

    Raises:
        UserError: one of the parts would be empty.
    """
    validation = len(random_split(count, validation_fraction, seed)[1])
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).numpy()
    return order[:-validation], order[-validation:]


def _pixels(images: dict[Split, np.ndarray]) -> dict[Split, Tensor]:
    """Return the images (n, 3072) of the files as pixels (n, 1024, 3) uint8, which take a quarter of the memory of floats."""
    return {
        split: torch.from_numpy(np.ascontiguousarray(array.reshape(len(array), 3, -1).transpose(0, 2, 1)))
        for split, array in images.items()
    }


def _source(data_dir: Path) -> Path:
    if all(os.path.isfile(data_dir / name) for name in FILES):
        return data_dir
    for place in (FOLDER, ARCHIVE, f"cifar10/{FOLDER}", f"cifar10/{ARCHIVE}"):
        if os.path.exists(data_dir / place):
            return data_dir / place
    try:
        download_file(data_dir, ARCHIVE, MD5, URL)
    except DownloadError as error:
        files = [f"{ARCHIVE} (md5 {MD5}) or the unpacked folder {FOLDER}"]
        raise missing_files("scifar", files, data_dir, f"{ARCHIVE} or {FOLDER}", f"the download failed ({error})") from None
    return data_dir / ARCHIVE
