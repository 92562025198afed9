"""Parser of the commands with options, with one-line errors, and the status line of a worker process."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from seqmem.errors import UserError, suggestion
from seqmem.io import interrupts

status_line: Callable[[str], None] | None = None
"""Shows a text as the status line of this process, in a terminal of its parent; None without one."""


class Parser(argparse.ArgumentParser):
    """An argument parser that prints an error as one line, and the description as it is written.

    Args:
        prog: name of the command; ``seqmem SUBCOMMAND`` where that started it.
        description: of the command.
    """

    def __init__(self, prog: str, description: str):
        name = sys.argv[0] if sys.argv[0].startswith("seqmem ") else prog
        super().__init__(name, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def run(self, command: Callable[[argparse.Namespace], Any], arguments: Sequence[str] | None = None) -> None:
        """Parse a command line and call the command with it; an error ends the program with one line.

        Args:
            command: gets the parsed arguments.
            arguments: of the command line; None for those of ``sys.argv``.
        """
        given = self.parse_args(arguments)
        with self.one_line_errors():
            command(given)

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with status 2."""
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            message += suggestion(unknown.split()[0], self._option_string_actions)
        self.exit(2, f"error: {message}\n")

    @contextmanager
    def one_line_errors(self) -> Iterator[None]:
        """Print a UserError raised inside the ``with`` block, or an interrupt, as one line, too."""
        try:
            with interrupts.unwinding():
                yield
        except BaseException as error:
            if interrupts.received() is not None or isinstance(error, KeyboardInterrupt):
                self.exit(interrupts.status(), "error: interrupted\n")
            if not isinstance(error, UserError):
                raise
            self.error(str(error))


def at_least(least: int) -> Callable[[str], int]:
    """Return the type of an argument that is a whole number of at least ``least``."""

    def parse(text: str) -> int:
        try:
            number = int(text.replace("_", ""))
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"got '{text}', expected a whole number of at least {least}")
        return number

    return parse
