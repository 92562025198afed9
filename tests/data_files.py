"""The files that a data set reads, so that a test that needs them can be skipped without them."""

import os
from pathlib import Path

import pytest

FILES = {
    "mnist": "MNIST/raw/train-images-idx3-ubyte",
    "ct": "CharacterTrajectories/CharacterTrajectories_TRAIN.ts",
    "imdb": "aclImdb_v1.tar.gz",
    "scifar": "cifar-10-batches-py/data_batch_1",
    "text": "text8/text8",
    "text8": "text8/text8",
}


def require(dataset: str, problem: str = "") -> None:
    """Skip the test if the files of the data set, or of a problem of the UEA archive, are not where SEQMEM_DATA points."""
    file = f"{problem}/{problem}_TRAIN.ts" if problem else FILES.get(dataset)
    if file and not (Path(os.environ.get("SEQMEM_DATA", "data")) / file).exists():
        pytest.skip(f"{file} is not where SEQMEM_DATA points")
