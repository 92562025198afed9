"""Word tokenizer and vocabulary."""

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

PADDING = 0
UNKNOWN = 1
"""Tokens of the padding, and of any word outside the vocabulary."""

_line_break = re.compile(r"<br\s*/?>")
_word = re.compile(r"[^\W_]+(?:'[^\W_]+)*|\S")


def tokenize(text: str) -> list[str]:
    """Split a text into lower-case tokens.

    A token is a run of letters and digits, which may have apostrophes inside, or any other single character that is not white
    space. HTML line breaks separate tokens and are not tokens.

    >>> tokenize("It's <br /><br />GREAT (8/10)!")
    ["it's", 'great', '(', '8', '/', '10', ')', '!']
    """
    return _word.findall(_line_break.sub(" ", text.lower()))


class Numbering:
    """Numbers words in the order of first appearance, so that texts can be kept as integers."""

    def __init__(self) -> None:
        self._numbers: defaultdict[str, int] = defaultdict()
        self._numbers.default_factory = self._numbers.__len__

    def __call__(self, words: Sequence[str]) -> np.ndarray:
        """Return the number of each word, (n,) int32; a new word gets the next number."""
        return np.fromiter(map(self._numbers.__getitem__, words), np.int32, len(words))

    def words(self) -> list[str]:
        """Return all words so far, in the order of their numbers."""
        return list(self._numbers)


def vocabulary(words: Sequence[str], texts: Sequence[np.ndarray], size: int) -> list[str]:
    """Return the most frequent words, the most frequent one first, and equally frequent ones in alphabetical order.

    Args:
        words: every word, in the order of its number in ``texts``.
        texts: the texts whose words are counted, (n,) int32 each.
        size: largest number of tokens, :data:`PADDING` and :data:`UNKNOWN` included.
    """
    counts = np.bincount(np.concatenate(texts), minlength=len(words)).tolist()
    present = [number for number, count in enumerate(counts) if count]
    return [words[number] for number in sorted(present, key=lambda number: (-counts[number], words[number]))[: size - 2]]


def tokens_of(words: Sequence[str], known: Sequence[str]) -> np.ndarray:
    """Return the token of each word, (len(words),) int32.

    Args:
        words: any words.
        known: a vocabulary, whose first word has the token 2, the next one 3, and so on. Other words are :data:`UNKNOWN`.
    """
    tokens = {word: token for token, word in enumerate(known, 2)}
    return np.fromiter((tokens.get(word, UNKNOWN) for word in words), np.int32, len(words))
