"""Characters as tokens: the 27 symbols of text8, cleaning, and windows over a text."""

import re
import warnings

import numpy as np

from seqmem.errors import DataWarning, UserError

ALPHABET = "abcdefghijklmnopqrstuvwxyz "
"""The symbols in the order of their tokens: a to z are 0 to 25, the space is 26."""

_spaces = re.compile(r"  +")
_other = re.compile(r"[^a-z ]")
_letter = re.compile("[a-zA-Z]")
_symbols = np.frombuffer(ALPHABET.encode(), np.uint8)
_tokens = np.full(128, len(ALPHABET), np.uint8)
_tokens[_symbols] = np.arange(len(ALPHABET))

_BLOCK = 2**22

MOST_DROPPED, NOTED = 0.5, 0.01
"""Part of the letters that may become spaces, and the part from which on a warning says so."""


def clean(text: str) -> str:
    """Reduce a text to the 27 symbols.

    Line ends become spaces, runs of spaces become one space, letters lower case. Then each character outside the alphabet
    becomes a space of its own.

    >>> clean("It's\\n  GREAT")
    'it s great'
    """
    line = text.replace("\r", " ").replace("\n", " ")
    return _other.sub(" ", _spaces.sub(" ", line).lower())


def dropped_letters(text: str) -> tuple[float, str]:
    """Return which part of a text's letters :func:`clean` replaces by spaces, and the most frequent ones of them.

    >>> dropped_letters("na\u00efve, 100 %")
    (0.2, "'\u00ef'")
    """
    if text.isascii():
        return 0.0, ""
    counts = np.zeros(0x110000, np.int64)
    for start in range(0, len(text), _BLOCK):
        points = np.frombuffer(text[start : start + _BLOCK].lower().encode("utf-32-le"), np.uint32)
        counts += np.bincount(points, minlength=len(counts))
    letters = {chr(point): int(counts[point]) for point in np.flatnonzero(counts) if chr(point).isalpha()}
    dropped = {letter: count for letter, count in letters.items() if letter not in ALPHABET}
    most = sorted(dropped, key=lambda letter: -dropped[letter])[:5]
    return sum(dropped.values()) / max(sum(letters.values()), 1), ", ".join(repr(letter) for letter in most)


def check_letters(name: str, text: str) -> None:
    """Refuse a text in a different script, and warn of one with many letters outside of the alphabet.

    Args:
        name: of the text, for the message.
        text: before :func:`clean`.

    Raises:
        UserError: more than half of its letters would become spaces, or it has no letter.
    """
    dropped, most = dropped_letters(text)
    if dropped > MOST_DROPPED:
        raise UserError(
            f"{name}: {dropped:.1%} of the letters are not a to z and would become spaces (most often {most}), expected a "
            "text in the Latin alphabet; transliterate it first"
        )
    if dropped >= NOTED:
        warnings.warn(
            f"{name}: {dropped:.1%} of the letters are not a to z and become spaces (most often {most})",
            DataWarning,
            stacklevel=3,
        )
    if not _letter.search(text):
        raise UserError(f"{name}: got a text without a letter from a to z, expected a plain text in UTF-8")


def encode(text: str) -> np.ndarray:
    """Return the token of each character of a cleaned text, (n,) uint8.

    Raises:
        UserError: a character outside the alphabet.

    >>> encode("a z").tolist()
    [0, 26, 25]
    """
    tokens = _tokens[np.frombuffer(text.encode("ascii", "replace"), np.uint8)]
    if len(foreign := np.flatnonzero(tokens == len(ALPHABET))):
        raise UserError(
            f"got {text[foreign[0]]!r} at character {foreign[0]}, expected a to z and spaces only; seqmem.data.text.clean"
            " replaces other characters"
        )
    return tokens


def decode(tokens: np.ndarray) -> str:
    """Return the text of (n,) tokens, integers from 0 to 26.

    >>> decode(np.array([7, 8, 26, 0]))
    'hi a'
    """
    return _symbols[tokens].tobytes().decode()


def window_starts(characters: int, length: int, step: int) -> np.ndarray:
    """Return the starts 0, ``step``, ... of all windows of a text that a character follows.

    Args:
        characters: n, characters of the text.
        length: characters of a window; the character after it is the target of its last one.
        step: distance of the starts.

    Returns:
        (k,) int64.

    >>> window_starts(9, 4, 2).tolist()
    [0, 2, 4]
    """
    return np.arange(0, characters - length, step)
