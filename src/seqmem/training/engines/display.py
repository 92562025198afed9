"""What the parent of worker processes prints: their lines, and in a terminal a status line of each running trial."""

import sys
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from seqmem.io import interrupts


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


class LiveLines(Lines):
    """Draws lines at the bottom of a terminal, below the lines that are printed, and removes them at the end.

    The line at an interrupt is printed above them with the next drawing: written at once, it would move them.
    """

    in_terminal = True

    def __init__(self) -> None:
        self._live: Live | None = None
        self._changed = False
        self._notices: list[str] = []

    def refresh(self) -> None:
        """Draw the lines if they have changed."""
        for notice in self._taken():
            print(notice, end="", file=sys.stderr, flush=True)
        if not self._changed:
            return
        if self._live is None:
            # No thread draws: a process that is forked meanwhile would have its locks.
            self._live = Live(auto_refresh=False, transient=True)
            self._live.start()
            interrupts.write_by(self._notices.append, "\x1b[?25h\n")  # shows the cursor, which is hidden meanwhile
        self._changed = False
        self._live.update(Group(*self.lines(self._live.console)), refresh=True)

    def lines(self, console: Console) -> list[Text]:
        """Return what is drawn."""
        raise NotImplementedError

    def close(self) -> None:
        """Remove the lines."""
        if self._live is not None:
            self._live.stop()
            self._live = None
            interrupts.write_by(None)
        for notice in self._taken():
            print(notice, end="", file=sys.stderr, flush=True)

    def _taken(self) -> list[str]:
        notices = self._notices[:]
        del self._notices[: len(notices)]
        return notices


class StatusLines(LiveLines):
    """Shows the status line of each running trial, in the order in which the trials began."""

    def __init__(self) -> None:
        super().__init__()
        self._status: dict[str, str] = {}

    def show(self, kind: str, name: str, content: str) -> None:
        """Print a line, or note a status line."""
        if kind == "status":
            self._status[name] = content
        elif kind == "end":
            self._status.pop(name, None)
        self._changed = self._changed or kind in ("status", "end")
        super().show(kind, name, content)

    def lines(self, console: Console) -> list[Text]:
        """Return the status lines."""
        return [one_line(text) for text in self._status.values()]


def one_line(text: str, style: str = "") -> Text:
    """Return a text that ends with an ellipsis where the terminal does."""
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def display() -> Display:
    """Return what suits the standard output of this process."""
    return StatusLines() if sys.stdout.isatty() else Lines()
