"""Files of a test, written and loaded."""

import pytest

from tests.datasets.files.tables import loaded


@pytest.fixture
def load(tmp_path):
    """Write a file, or take one by name, and load it."""

    def load(content, name="own.csv", **arguments):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            path.write_bytes(content.encode())
        return loaded(path, **arguments)

    return load
