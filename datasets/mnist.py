"""Sequential and permuted MNIST."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt

from seqmem.arguments import checked
from seqmem.data import PermutationName, Provenance, Seed, label_of, random_split, sha256
from seqmem.datasets.pixels import PixelSequences, permutation_for
from seqmem.errors import UserError
from seqmem.io.download import DownloadError, download, missing_files
from seqmem.io.idx import read_idx


@dataclass(frozen=True)
class _File:
    name: str
    dimensions: int
    size: int
    sha256: str


TRAIN_IMAGES = _File(
    "train-images-idx3-ubyte",
    dimensions=3,
    size=47_040_016,
    sha256="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
)
TRAIN_LABELS = _File(
    "train-labels-idx1-ubyte",
    dimensions=1,
    size=60_008,
    sha256="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
)
TEST_IMAGES = _File(
    "t10k-images-idx3-ubyte",
    dimensions=3,
    size=7_840_016,
    sha256="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
)
TEST_LABELS = _File(
    "t10k-labels-idx1-ubyte",
    dimensions=1,
    size=10_008,
    sha256="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)
FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)


class MNIST(PixelSequences):
    """The 70,000 handwritten digits of 28x28 pixels (LeCun et al., 1998), as sequences of 784 pixels.

    A step is a pixel: inputs are (B, 784, 1), grey values divided by 255 and not standardised; targets are (B,) of 10 classes.
    The 10,000 official test images are the test split; the validation split is a random part of the other 60,000. Other images
    under the names of MNIST's files, such as Fashion-MNIST, are called "mnist other files" in tables.
    """

    name = "mnist"

    @checked
    def __init__(
        self,
        data_dir: str | Path = "data",
        permute: bool = False,
        permutation: PermutationName = "bitreversal",
        validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1,
        split_seed: Seed = 0,
        train_samples: PositiveInt | None = None,
        num_workers: NonNegativeInt = 0,
    ):
        """Load the images and split them.

        Args:
            data_dir: folder with the four idx files in ``MNIST/raw/``, as torchvision leaves them. ``MNIST/`` and the folder
                itself are searched, too, also for files that are compressed by gzip or have a dot in their names, as in
                ``train-images.idx3-ubyte``. Missing files are downloaded; a folder that has all of them is never written to.
            permute: permute the pixels, in the same way for all images; false keeps them row by row.
            permutation: pixel order if ``permute``: "bitreversal", "nru" (the NRU paper's), or the seed of a random one.
            validation_fraction: fraction of the 60,000 training images for the validation split.
            split_seed: seed of that choice.
            train_samples: number of training images, a random part of the training split; None for all.
            num_workers: worker processes that make batches; 0 makes them in the main process.

        Raises:
            UserError: a file is missing and cannot be downloaded, is damaged or cannot be read, or there are fewer images
                than ``train_samples``.
        """
        paths = _paths(Path(os.path.expanduser(data_dir)))
        train_images, train_labels, train_sums = _read_images(paths, TRAIN_IMAGES, TRAIN_LABELS)
        test_images, test_labels, test_sums = _read_images(paths, TEST_IMAGES, TEST_LABELS)
        sums = train_sums | test_sums

        train, validation = random_split(len(train_images), validation_fraction, split_seed)
        if train_samples is not None and train_samples > len(train):
            raise UserError(
                f"dataset.train_samples: got {train_samples}, but mnist's training split has only {len(train)} images"
            )
        train = train[:train_samples]
        provenance = Provenance(
            seed=split_seed,
            sha256={"train": sha256(train), "validation": sha256(validation), "test": sha256(np.arange(len(test_images)))},
            permutation=permutation_for(permute, permutation, train_images.shape[1]),
            files={f"MNIST/raw/{name}": digest for name, digest in sums.items()},
        )
        super().__init__(
            {"train": train_images[train], "validation": train_images[validation], "test": test_images},
            {"train": train_labels[train], "validation": train_labels[validation], "test": test_labels},
            white=255,
            classes=10,
            provenance=provenance,
            num_workers=num_workers,
            label=label_of(self.name, sums, {file.name: file.sha256 for file in FILES}),
        )


def _paths(data_dir: Path) -> dict[str, Path]:
    """The path of each file by its name; those that are nowhere are downloaded."""
    folder = data_dir / "MNIST" / "raw"
    found = {file.name: _search(data_dir, file.name) for file in FILES}
    missing = [file for file in FILES if found[file.name] is None]
    if missing:
        try:
            archives, mirrors = _official_archives()
            download(folder, {f"{file.name}.gz": archives[f"{file.name}.gz"] for file in missing}, mirrors)
        except DownloadError as error:
            files = [file.name for file in missing]
            raise missing_files("mnist", files, folder, "MNIST/raw", f"the download failed ({error})") from None
    return {name: path or folder / name for name, path in found.items()}


def _search(data_dir: Path, file: str) -> Path | None:
    dotted = file.replace("-idx", ".idx")
    for folder in (data_dir / "MNIST" / "raw", data_dir / "MNIST", data_dir):
        for name in (file, dotted, f"{file}.gz", f"{dotted}.gz", f"{file}/{file}"):
            if os.path.isfile(folder / name):
                return folder / name
    return None


def _official_archives() -> tuple[dict[str, str], list[str]]:
    """Return the md5 of each archive and the mirrors, from torchvision.

    Raises:
        DownloadError: torchvision cannot be imported.
    """
    try:
        # Imported here because it takes a second, and most runs find their files.
        from torchvision.datasets import MNIST as Official
    except (ImportError, RuntimeError) as error:  # RuntimeError: it was built for a different torch
        raise DownloadError(f"torchvision, which lists the mirrors, cannot be imported: {error}") from None
    return dict(Official.resources), Official.mirrors


def _read_images(
    paths: dict[str, Path], images_file: _File, labels_file: _File
) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """The images (n, 784) and labels (n,) of a part, and the checksum of each file by its name."""
    images_path, labels_path = paths[images_file.name], paths[labels_file.name]
    images, images_sum = read_idx(images_path, images_file.dimensions, images_file.size)
    labels, labels_sum = read_idx(labels_path, labels_file.dimensions, labels_file.size)
    if images.shape[1:] != (28, 28):
        raise UserError(f"{images_path}: got images of {images.shape[1]}x{images.shape[2]} pixels, expected 28x28")
    if len(images) != len(labels) or not len(images):
        raise UserError(
            f"{images_path.parent}: got {len(images)} images in {images_path.name} and {len(labels)} labels in"
            f" {labels_path.name}, expected one label for each image and at least one image"
        )
    if labels.max() > 9:
        raise UserError(f"{labels_path}: got the label {labels.max()}, expected 0 to 9")
    return images.reshape(len(images), -1), labels, {images_file.name: images_sum, labels_file.name: labels_sum}
