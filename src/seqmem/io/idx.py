"""Reader of the idx format of the MNIST files."""

import hashlib
import math
import struct
from pathlib import Path

import numpy as np

from seqmem.errors import UserError
from seqmem.io.zips import gunzip

GZIP = b"\x1f\x8b"

LARGEST = 2**30
"""Most bytes of an unpacked file, far more than any of MNIST's. A small archive can hold any size."""


def read_idx(path: Path, dimensions: int, expected_size: int) -> tuple[np.ndarray, str]:
    """Read an idx file of unsigned bytes.

    Args:
        path: the file, as it is or compressed by gzip. It starts with a big-endian magic number (0x0800 + ``dimensions``) and
            the size of each dimension, four bytes each; the values follow.
        dimensions: expected number of dimensions; 3 for images, 1 for labels.
        expected_size: the usual size of this file in bytes, for the message if it has no header.

    Returns:
        The uint8 array and the sha256 of the file, unpacked, in hexadecimal.

    Raises:
        UserError: the file cannot be read, is not an idx file with ``dimensions`` dimensions, or its size differs from its
            header.
    """
    content = _content(path)
    header = 4 * (1 + dimensions)
    if len(content) < header:
        raise UserError(f"{path} is truncated: found {len(content)} bytes, expected {expected_size}")
    magic, *shape = struct.unpack(f">{1 + dimensions}I", content[:header])
    if magic != 0x0800 + dimensions:
        raise UserError(f"{path} is not such an idx file: found magic number {magic}, expected {0x0800 + dimensions}")
    size = header + math.prod(shape)
    if len(content) != size:
        fault = "truncated" if len(content) < size else "too long"
        raise UserError(f"{path} is {fault}: found {len(content)} bytes, expected {size}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape), hashlib.sha256(content).hexdigest()


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gunzip(content, LARGEST) if content.startswith(GZIP) else content
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
