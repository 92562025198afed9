"""Parser of the commands with options, with one-line errors, and the status line of a worker process."""

import argparse
import os
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
        """Print an error raised inside the ``with`` block, or an interrupt, as one line, too; a bug keeps its traceback."""
        try:
            with interrupts.unwinding():
                yield
                flush_output()
        except BaseException as error:
            if interrupts.received() is not None or isinstance(error, KeyboardInterrupt):
                self.exit(interrupts.status(), "error: interrupted\n")
            exit_if_output_closed(error)
            message = message_of(error)
            if message is None:
                raise
            self.error(one_line(message))


def message_of(error: BaseException) -> str | None:
    """Return the message of an error that the user can correct; None for any other error."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'output'}: {error.strerror}"
    reason = described(error)
    if isinstance(error, MemoryError) or "allocate memory" in reason or "out of memory" in reason:
        return f"not enough memory for this data set or model ({reason})"
    return None


def described(error: BaseException) -> str:
    """Return type and text of an error, without line breaks."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def one_line(message: str) -> str:
    """Return a message as one printable line of at most 1,000 characters."""
    message = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in message)
    return message if len(message) <= 1000 else f"{message[:600]} ... {message[-300:]}"


def flush_output() -> None:
    """Write what was printed so far, so that a closed pipe is noticed here and not at the end of the interpreter."""
    if sys.stdout is not None:
        sys.stdout.flush()


def exit_if_output_closed(error: BaseException) -> None:
    """End the program without a message if the reader of its output has ended, as ``head`` does."""
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


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
