"""Problems in files of a test's own."""

import pytest

from seqmem import datasets
from tests.tiny_files import write_ts


@pytest.fixture
def load(tmp_path):
    def load(problem, **arguments):
        return datasets.load({"name": "uea", "problem": problem, "data_dir": str(tmp_path), **arguments})

    return load


@pytest.fixture
def make(tmp_path, load):
    """Write a problem from its cases and load it."""

    def make(train, test, tags=(), **arguments):
        write_ts(tmp_path, "Made", "TRAIN", train, **dict(tags))
        write_ts(tmp_path, "Made", "TEST", test, **dict(tags))
        return load("Made", **arguments)

    return make
