"""text8: the first 10^8 characters of Wikipedia, cleaned (Mahoney, 2006)."""

import os
import zipfile
from pathlib import Path

from pydantic import NonNegativeInt, PositiveInt

from seqmem.arguments import checked
from seqmem.datasets.characters import CharacterSet
from seqmem.errors import UserError
from seqmem.io.download import DownloadError, download
from seqmem.io.zips import DAMAGE, check_size

CHARACTERS = 100_000_000
ARCHIVE = "text8.zip"
SIZE = 31_344_016
MD5 = "3bea1919949baf155f99411df5fada7e"
MIRRORS = ["https://mattmahoney.net/dc/", "http://mattmahoney.net/dc/"]
PLACES = ("text8/text8", "text8/text8.zip", "text8", "text8.zip")
"""Paths of the file or its archive below the data folder, in order of preference."""


class Text8(CharacterSet):
    """The next character of text8, 10^8 characters of 27 symbols. A shorter file is called "text8 prefix" in tables.

    A step is a character: inputs and targets are tokens (B, T). The splits are cut by position: 90, 5 and 5 million characters.
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
            data_dir: folder with ``text8/text8`` or ``text8.zip``; downloaded if neither exists.
            length: T, characters of a chunk or window.
            step: None for chunks in order, with carried state; a number for shuffled windows that far apart. Windows begin
                every ``step`` characters (HM-LSTM's original code: half of ``length``).
            characters: number of characters to use, from the beginning of the text; None for all.
            num_workers: worker processes that make batches; 0 makes them in the main process.

        Raises:
            UserError: the file is missing and cannot be downloaded, is damaged, cannot be read or is too short.
        """
        content = _content(Path(os.path.expanduser(data_dir)))
        label = "" if (characters or len(content)) == CHARACTERS else "prefix"
        super().__init__(label, content, length, step, characters, num_workers)


def _content(data_dir: Path) -> bytes:
    found = [data_dir / place for place in PLACES if (data_dir / place).is_file()]
    if not found:
        folder = data_dir / "text8"
        try:
            download(folder, {ARCHIVE: MD5}, MIRRORS)
        except DownloadError as error:
            raise UserError(
                f"text8: {folder} has no {ARCHIVE} ({SIZE} bytes, md5 {MD5}), and the download failed ({error}); put the"
                " archive or the file text8 there, or set dataset.data_dir to the folder that has the folder text8"
            ) from None
        found = [folder / "text8"]
    try:
        if found[0].suffix != ".zip":
            return found[0].read_bytes()
        with zipfile.ZipFile(found[0]) as archive:
            check_size(archive)
            return archive.read("text8")
    except (OSError, *DAMAGE) as error:
        raise UserError(f"text8: cannot read {found[0]} ({error}); remove it to have it downloaded again") from None
