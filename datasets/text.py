"""Any plain text, as characters."""

import os
from pathlib import Path

from pydantic import NonNegativeInt, PositiveInt
from seqmem.datasets.characters import CharacterSet

from seqmem.arguments import checked
from seqmem.errors import UserError


class Text(CharacterSet):
    """The next character of a text of one's own, brought into text8's 27 symbols by :func:`seqmem.data.text.clean`."""

    name = "text"

    @checked
    def __init__(
        self,
        path: str | Path,
        length: PositiveInt = 100,
        step: PositiveInt | None = None,
        characters: PositiveInt | None = None,
        num_workers: NonNegativeInt = 0,
    ):
        """Read the text.

        Args:
            path: the file, in UTF-8.
            length: T, characters of a chunk or window.
            step: None for chunks that follow each other, so that the state can be carried; a number for shuffled windows that
                begin every so many characters.
            characters: use the first so many characters only; None uses all.
            num_workers: processes that make batches; 0 makes them in the main one.

        Raises:
            UserError: the file cannot be read, is not UTF-8 or too short.
        """
        file = Path(os.path.expanduser(path))
        try:
            content = file.read_bytes()
        except OSError as error:
            raise UserError(
                f"dataset.path: cannot read {file} ({error.strerror}); expected a plain text file in UTF-8"
            ) from None
        super().__init__(file.stem, content, length, step, characters, num_workers)
