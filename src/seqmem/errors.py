"""Errors for users: one line with the value, the expected ones and the nearest valid choice."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

_in_checkout = Path(__file__).parents[1].name == "src"


class UserError(ValueError):
    """Bad input, with a one-line message for the user that is shown without a traceback."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


class DataWarning(UserWarning):
    """The data are not those that their name stands for, or a part of them is not used."""


class UnknownArgumentError(UserError):
    """Arguments that do not exist.

    Attributes:
        keys: of the arguments, for example ``"model.hidden_size"``.
        fact: the message without the nearest valid choice; empty for several arguments.
    """

    def __init__(self, message: str, keys: Sequence[str] = (), fact: str = ""):  # pickle gives the message alone
        super().__init__(message)
        self.keys = tuple(keys)
        self.fact = fact


def nearest(given: object, choices: Iterable[object], cutoff: float = 0.6) -> str | None:
    """Return the choice that differs least from ``given``; None if all differ much.

    Capitals count as small letters. Initials stand for words: ``weight_decay`` is nearest to ``wd``, CharacterTrajectories to
    ``ct``, unless a choice is much like the whole.
    """
    names = {str(choice).lower(): str(choice) for choice in choices}
    text = str(given)
    for least in (max(cutoff, 0.8), cutoff):
        found = get_close_matches(text.lower(), names, n=1, cutoff=least)
        if found:
            return names[found[0]]
        initials = "".join(re.findall(r"[A-Z]|(?<![A-Za-z])[a-z]", text)).lower()
        if len(initials) > 1 and initials in names:
            return names[initials]
    return None


def suggestion(given: object, choices: Iterable[object]) -> str:
    """Return the end of an error line: the choice nearest to ``given``, or else all choices.

    >>> suggestion("legz", ["legs", "lstm"])
    "; did you mean 'legs'?"
    >>> suggestion("LSTM", ["legs", "lstm"])
    "; did you mean 'lstm'?"
    >>> suggestion("transformer", ["legs", "lstm"])
    '; choose from: legs, lstm'
    """
    names = [str(choice) for choice in choices]
    near = nearest(given, names)
    if near is not None:
        return meant([near])
    return f"; choose from: {', '.join(names)}" if names else ""


def check_choice(name: str, given: object, choices: Sequence[str]) -> None:
    """Refuse a value that is none of the choices.

    Args:
        name: of the argument.
        given: its value.
        choices: the values that it may have.

    Raises:
        UserError: naming all choices, and the nearest one.
    """
    if given not in choices:
        near = nearest(given, choices)
        raise UserError(f"{name}: got {given!r}, expected {', '.join(choices)}{meant([near]) if near else ''}")


def meant(choices: Sequence[str]) -> str:
    """Return the end of an error line that asks for one of at most three choices."""
    return f"; did you mean {' or '.join(map(repr, choices[:3]))}?"


def not_installed(extra: str) -> str:
    """Return the end of an error line: how to install the packages of an extra."""
    packages = f"-r requirements/{extra}.txt" if _in_checkout else f"'seqmem[{extra}]'"
    return f"is not installed; install it with: pip install {packages}"
