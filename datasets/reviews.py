"""Reader of the IMDB reviews: from their archive, without unpacking it, or from the unpacked folder."""

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
"""Most bytes of a review, far more than any has. A small archive can declare, and compress, any size."""

_review = re.compile(rf"({'|'.join(GROUPS)})/[0-9]+_[0-9]+\.txt")


@dataclass(frozen=True)
class Review:
    """One review.

    Attributes:
        path: ``aclImdb/PART/LABEL/ID_RATING.txt``, PART being train or test, LABEL neg or pos.
        text: the unchanged text, with HTML line breaks.
    """

    path: str
    text: str


def read_reviews(source: Path) -> Iterator[Review]:
    """Yield the reviews of a tar file, compressed or not, in its order, or of a folder ``aclImdb`` in alphabetical order.

    Nothing is unpacked. Members whose path is not that of a review are skipped.

    Raises:
        UserError: a file is damaged or cannot be read, a review is not UTF-8, or one in an archive has more than a mebibyte.
    """
    try:
        yield from _unpacked(source) if source.is_dir() else _archived(source)
    except UnicodeDecodeError as error:
        raise UserError(f"{source} has a review that is not UTF-8: {error}") from None
    except (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError) as error:
        where = getattr(error, "filename", None) or source
        raise UserError(f"{where} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def file_checksum(path: Path, algorithm: str = "sha256") -> str:
    """Return the checksum of a file, in hexadecimal.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def _archived(archive: Path) -> Iterator[Review]:
    with tarfile.open(archive) as members:
        for member in members:
            # Reading a link would read the file that it points to.
            if member.isreg() and _review.fullmatch(member.name):
                if member.size > LONGEST:
                    raise UserError(f"{archive}: got {member.name} of {member.size} bytes, expected at most {LONGEST}")
                content = members.extractfile(member)
                assert content is not None
                yield Review(member.name, content.read().decode())


def _unpacked(folder: Path) -> Iterator[Review]:
    for group in GROUPS:
        for name in sorted(os.listdir(folder.parent / group)):
            path = f"{group}/{name}"
            if _review.fullmatch(path):
                yield Review(path, (folder.parent / path).read_bytes().decode())
