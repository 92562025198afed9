"""text8: the first 10^8 characters of Wikipedia, cleaned (Mahoney, 2006)."""

import hashlib
import os
import zipfile
from pathlib import Path

from pydantic import NonNegativeInt, PositiveInt

from seqmem.arguments import checked
from seqmem.data import label_of
from seqmem.datasets.characters import CharacterSet
from seqmem.errors import UserError
from seqmem.io.download import DownloadError, download, missing_files
from seqmem.io.zips import DAMAGE, check_size, gunzip

CHARACTERS = 100_000_000
CONTENT_MD5 = "3bea1919949baf155f99411df5fada7e"
"""Checksum of the whole text, which its publisher gives."""

BEGINNING = 65_536
BEGINNING_SHA256 = "28b8d3ca377976b77aeef1ae27ec72f62ee1756f92e79498a1cbbb06afa371b4"
"""Checksum of the first characters, which every longer prefix of the text has.

No publisher states it. It was computed from a prefix of 700,000 characters that came with this project's development.
"""

ARCHIVE = "text8.zip"
MD5 = "f26f94c5209bc6159618bad4a559ff81"
MIRRORS = ["https://mattmahoney.net/dc/", "http://mattmahoney.net/dc/"]
PLACES = tuple(f"{folder}text8{suffix}" for suffix in ("", ".zip", ".gz", ".txt") for folder in ("text8/", ""))
"""Paths of the file or its archive below the data folder, in order of preference."""


class Text8(CharacterSet):
    """The next character of text8, 10^8 characters of 27 symbols.

    A step is a character: inputs and targets are tokens (B, T). The splits are cut by position: 90, 5 and 5 million characters.
    A shorter file is called "text8 prefix" in tables, and a file with other characters "text8 other files".
    """

    name = "text8"

    @checked
    def __init__(
        self,
        data_dir: str | Path = "data",
        length: PositiveInt = 100,
        step: PositiveInt | None = None,
        characters: PositiveInt | None = None,
        num_workers: NonNegativeInt = 0,
    ):
        """Read the text.

        Args:
            data_dir: folder with ``text8/text8``, ``text8.zip``, ``.gz`` or ``.txt``; downloaded if none exists.
            length: T, characters of a chunk or window.
            step: None for chunks in order, with carried state; a number for shuffled windows that far apart. Windows begin
                every ``step`` characters (HM-LSTM's original code: half of ``length``).
            characters: number of characters to use, from the beginning of the text; None for all.
            num_workers: worker processes that make batches; 0 makes them in the main process.

        Raises:
            UserError: the file is missing and cannot be downloaded, is damaged, cannot be read or is too short.
        """
        content = _content(Path(os.path.expanduser(data_dir)))
        label = _label(self.name, content, characters or len(content))
        super().__init__(label, content, length, step, characters, num_workers)


def _label(name: str, content: bytes, characters: int) -> str:
    """Label of the first characters of a text in tables."""
    found, expected = {}, {}
    if len(content) >= BEGINNING:
        key = f"sha256 of the first {BEGINNING} characters"
        found[key], expected[key] = hashlib.sha256(content[:BEGINNING]).hexdigest(), BEGINNING_SHA256
    if len(content) == CHARACTERS:
        found["md5"], expected["md5"] = hashlib.md5(content, usedforsecurity=False).hexdigest(), CONTENT_MD5
    return label_of(name, found, expected) or ("" if characters == CHARACTERS else "prefix")


def _content(data_dir: Path) -> bytes:
    found = [data_dir / place for place in PLACES if (data_dir / place).is_file()]
    if not found:
        folder = data_dir / "text8"
        try:
            download(folder, {ARCHIVE: MD5}, MIRRORS)
        except DownloadError as error:
            reason = f"the download failed ({error})"
            raise missing_files("text8", [ARCHIVE], folder, "text8/text8.zip or text8/text8", reason) from None
        found = [folder / "text8"]
    try:
        if found[0].suffix == ".gz":
            return gunzip(found[0].read_bytes(), CHARACTERS)
        if found[0].suffix != ".zip":
            return found[0].read_bytes()
        with zipfile.ZipFile(found[0]) as archive:
            check_size(archive)
            return archive.read("text8")
    except (OSError, *DAMAGE) as error:
        raise UserError(f"text8: cannot read {found[0]} ({error}); remove it to have it downloaded again") from None
