"""Which files a data set reads, so that a test which needs them can say that they are not there."""

import os
from pathlib import Path

import pytest

FILES = {
    "mnist": "MNIST/raw/train-images-idx3-ubyte",
    "ct": "CharacterTrajectories/CharacterTrajectories_TRAIN.ts",
    "imdb": "aclImdb_v1.tar.gz",
    "text": "text8/text8",
    "text8": "text8/text8",
}


def require(dataset: str) -> None:
    """Skip the test if the data set's files are not where SEQMEM_DATA points."""
    wanted = FILES.get(dataset)
    if wanted and not (Path(os.environ.get("SEQMEM_DATA", "data")) / wanted).exists():
        pytest.skip(f"{wanted} is not where SEQMEM_DATA points")
