"""Reader of idx files: a damaged file is named in one line."""

import gzip
import hashlib

import numpy as np
import pytest

from seqmem.errors import UserError
from seqmem.io import idx
from seqmem.io.idx import read_idx
from tests.tiny_files import idx_bytes


def test_what_was_written_is_read(tmp_path):
    array = np.arange(3 * 5 * 7).reshape(3, 5, 7).astype(np.uint8)
    (tmp_path / "images").write_bytes(idx_bytes(array))
    found, digest = read_idx(tmp_path / "images", 3, 121)
    assert (found == array).all()
    assert digest == hashlib.sha256(idx_bytes(array)).hexdigest()
    (tmp_path / "images.gz").write_bytes(gzip.compress(idx_bytes(array)))
    assert (read_idx(tmp_path / "images.gz", 3, 121)[0] == array).all()
    assert read_idx(tmp_path / "images.gz", 3, 121)[1] == digest


DAMAGE = [
    (b"", "is truncated: found 0 bytes, expected 47"),
    (b"\0\0\x08", "is truncated: found 3 bytes, expected 47"),
    (idx_bytes(np.zeros((3, 4, 5)))[:-1], "is truncated: found 75 bytes, expected 76"),
    (idx_bytes(np.zeros((3, 4, 5))) + b"\0", "is too long: found 77 bytes, expected 76"),
    (idx_bytes(np.zeros(60)), "is not such an idx file: found magic number 2049, expected 2051"),
    (b"<html>not found</html>", "found magic number 1013478509, expected 2051"),
    (gzip.compress(idx_bytes(np.zeros(60))), "found magic number 2049, expected 2051"),
    (gzip.compress(idx_bytes(np.zeros((3, 4, 5))))[:-9], "cannot be read: Compressed file ended"),
    (
        idx_bytes(np.zeros((1, 1, 1)))[:4] + b"\xff" * 12,
        "is truncated: found 16 bytes, expected 79228162458924105385300197391",
    ),
]


def test_a_damaged_file_is_named_with_the_found_and_the_expected_value(tmp_path):
    for content, message in DAMAGE:
        (tmp_path / "images").write_bytes(content)
        with pytest.raises(UserError) as error:
            read_idx(tmp_path / "images", 3, 47)
        assert str(error.value).startswith(str(tmp_path / "images"))
        assert message in str(error.value)


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_idx(tmp_path, 3, 47)


def test_an_archive_that_would_fill_memory_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "LARGEST", 100)
    (tmp_path / "images").write_bytes(gzip.compress(bytes(101)))
    with pytest.raises(UserError, match="images cannot be read: its 24 bytes have more than 100 unpacked"):
        read_idx(tmp_path / "images", 3, 47)
