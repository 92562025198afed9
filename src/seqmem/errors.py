"""Errors for users: one line with the value, the expected ones and the nearest valid choice."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Bad input, with a one-line message for the user that is shown without a traceback."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


class DataWarning(UserWarning):
    """The data are not those that their name stands for, or a part of them is not used."""


def suggestion(given: object, choices: Iterable[object]) -> str:
    """Return the end of an error line: the choice nearest to ``given``, or else all choices.

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
    """Return the end of an error line: how to install an extra of pyproject.toml."""
    return f"is not installed; install it with: pip install --no-build-isolation -e '.[{extra}]'"
