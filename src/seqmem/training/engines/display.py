"""What the parent of worker processes prints: their lines, and in a terminal a status line of each running trial."""

import sys
from typing import Protocol

from rich.console import Group
from rich.live import Live
from rich.text import Text


class Display(Protocol):
    """Shows messages of worker processes."""

    in_terminal: bool

    def show(self, kind: str, name: str, content: str) -> None:
        """Show a message of the process ``name``.

        Args:
            kind: "line" for its standard output, "error" for its standard error, "status" for its status line, "end" after its
                last message.
            name: of the process.
            content: one or more whole lines without the last line end.
        """

    def refresh(self) -> None:
        """Draw the status lines."""

    def close(self) -> None:
        """Remove the status lines."""


class Lines:
    """Prints lines as they come, for a file or a pipe."""

    in_terminal = False

    def show(self, kind: str, name: str, content: str) -> None:
        """Print a line of either stream."""
        if kind in ("line", "error"):
            print(content, file=sys.stdout if kind == "line" else sys.stderr, flush=True)

    def refresh(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class StatusLines(Lines):
    """Shows the status line of each running trial below the lines that are printed."""

    in_terminal = True

    def __init__(self) -> None:
        self._status: dict[str, str] = {}
        self._live: Live | None = None
        self._changed = False

    def show(self, kind: str, name: str, content: str) -> None:
        """Print a line, or note a status line."""
        if kind == "status":
            self._status[name] = content
        elif kind == "end":
            self._status.pop(name, None)
        self._changed = self._changed or kind in ("status", "end")
        super().show(kind, name, content)

    def refresh(self) -> None:
        """Draw the status lines in the order in which the trials began."""
        if not self._changed:
            return
        if self._live is None:
            # No thread draws: a process that is forked meanwhile would have its locks.
            self._live = Live(auto_refresh=False, transient=True)
            self._live.start()
        self._changed = False
        lines = [Text(text, no_wrap=True, overflow="ellipsis") for text in self._status.values()]
        self._live.update(Group(*lines), refresh=True)

    def close(self) -> None:
        """Remove the status lines."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def display() -> Display:
    """Return what suits the standard output of this process."""
    return StatusLines() if sys.stdout.isatty() else Lines()
