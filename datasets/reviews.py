"""The folders of the IMDB reviews, read out of their archive without unpacking it."""

import hashlib
import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from seqmem.errors import UserError

GROUPS = ("aclImdb/test/neg", "aclImdb/test/pos", "aclImdb/train/neg", "aclImdb/train/pos")

LONGEST = 2**20
"""Bytes of a review, far more than any has. A small archive can announce, and compress, any size."""

_review = re.compile(rf"({'|'.join(GROUPS)})/[0-9]+_[0-9]+\.txt")


@dataclass(frozen=True)
class Review:
    """One review.

    Attributes:
        path: ``aclImdb/PART/LABEL/ID_RATING.txt``, PART being train or test, LABEL neg or pos.
        text: as written, with HTML line breaks.
    """

    path: str
    text: str


def read_reviews(source: Path) -> Iterator[Review]:
    """The reviews in a tar file, compressed or not, in its order, or in a folder ``aclImdb``, in alphabetical order.

    Nothing is unpacked; whatever is no review by its path is passed over.

    Raises:
        UserError: something cannot be read or is damaged, or a review is not UTF-8, or in an archive of more than a mebibyte.
    """
    try:
        yield from _unpacked(source) if source.is_dir() else _archived(source)
    except UnicodeDecodeError as error:
        raise UserError(f"{source} holds a review that is not UTF-8: {error}") from None
    except (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError) as error:
        where = getattr(error, "filename", None) or source
        raise UserError(f"{where} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def _archived(archive: Path) -> Iterator[Review]:
    with tarfile.open(archive) as members:
        for member in members:
            # A link would be read as whatever it points to.
            if member.isreg() and _review.fullmatch(member.name):
                if member.size > LONGEST:
                    raise UserError(f"{archive} holds {member.name} of {member.size} bytes, expected at most {LONGEST}")
                content = members.extractfile(member)
                assert content is not None
                yield Review(member.name, content.read().decode())


def _unpacked(folder: Path) -> Iterator[Review]:
    for group in GROUPS:
        for name in sorted(os.listdir(folder.parent / group)):
            path = f"{group}/{name}"
            if _review.fullmatch(path):
                yield Review(path, (folder.parent / path).read_bytes().decode())
