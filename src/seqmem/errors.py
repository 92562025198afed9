"""Errors that a user can act on: one line that says what was given, what was wanted and the nearest valid choice."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Bad input. The message is a single line meant for the person who typed it, so it is shown without a traceback."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


def suggestion(given: object, choices: Iterable[object]) -> str:
    """The end of an error line: the nearest of ``choices`` to ``given`` if one is near, else all of them.

    >>> suggestion("legz", ["legs", "lstm"])
    "; did you mean 'legs'?"
    >>> suggestion("transformer", ["legs", "lstm"])
    '; choose from: legs, lstm'
    """
    names = [str(choice) for choice in choices]
    near = get_close_matches(str(given), names, n=1)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; choose from: {', '.join(names)}" if names else ""


def not_installed(extra: str) -> str:
    """The end of an error line: how to install what an extra of pyproject.toml brings."""
    return f"is not installed: pip install --no-build-isolation -e '.[{extra}]' brings it"
