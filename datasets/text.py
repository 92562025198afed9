"""Next-character prediction on any plain text."""

import os
from pathlib import Path

from pydantic import NonNegativeInt, PositiveInt

from seqmem.arguments import checked
from seqmem.datasets.characters import CharacterSet
from seqmem.errors import UserError


class Text(CharacterSet):
    """The next character of a text of the user, reduced to text8's 27 symbols by :func:`seqmem.data.text.clean`.

    A step is a character: inputs and targets are tokens (B, T). The three splits are cut by position: 90, 5 and 5 %.
    """

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
            step: None for chunks in order, with carried state; a number for shuffled windows that far apart. Windows begin
                every ``step`` characters.
            characters: number of characters to use, from the beginning of the text; None for all.
            num_workers: worker processes that make batches; 0 makes them in the main process.

        Raises:
            UserError: the file cannot be read, is not UTF-8, or is too short.
        """
        file = Path(os.path.expanduser(path))
        try:
            content = file.read_bytes()
        except OSError as error:
            raise UserError(
                f"dataset.path: cannot read {file} ({error.strerror}); expected a plain text file in UTF-8"
            ) from None
        super().__init__(file.stem, content, length, step, characters, num_workers)
