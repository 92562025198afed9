"""Command-line parser of ``python -m seqmem.NAME``, with one-line errors, and the status line of a worker process."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from seqmem.errors import UserError, suggestion
from seqmem.io import interrupts

status_line: Callable[[str], None] | None = None
"""Shows a text as the status line of this process, in a terminal of its parent; None without one."""


class Parser(argparse.ArgumentParser):
    """An argument parser that prints an error as one line.

    Args:
        prog: name of the command; ``seqmem SUBCOMMAND`` where that started it.
        settings: of :class:`argparse.ArgumentParser`.
    """

    def __init__(self, prog: str, **settings: Any):
        super().__init__(sys.argv[0] if sys.argv[0].startswith("seqmem ") else prog, **settings)

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with status 2."""
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            message += suggestion(unknown.split()[0], self._option_string_actions)
        self.exit(2, f"{self.prog}: {message}\n")

    @contextmanager
    def one_line_errors(self) -> Iterator[None]:
        """Print a UserError raised inside the ``with`` block, or an interrupt, as one line, too."""
        try:
            with interrupts.unwinding():
                yield
        except BaseException as error:
            if interrupts.received() is not None or isinstance(error, KeyboardInterrupt):
                self.exit(interrupts.status(), f"{self.prog}: interrupted\n")
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
