"""From texts to numbers: a small word tokenizer and a vocabulary."""

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

PADDING = 0
UNKNOWN = 1
"""Numbers that stand for no word: what fills a batch up, and any word outside the vocabulary."""

_line_break = re.compile(r"<br\s*/?>")
_word = re.compile(r"[^\W_]+(?:'[^\W_]+)*|\S")


def tokenize(text: str) -> list[str]:
    """Split a text into lower-case tokens.

    A token is a run of letters and digits, with apostrophes inside it, or any other single character that is not white space.
    HTML line breaks separate tokens and leave none.

    >>> tokenize("It's <br /><br />GREAT (8/10)!")
    ["it's", 'great', '(', '8', '/', '10', ')', '!']
    """
    return _word.findall(_line_break.sub(" ", text.lower()))


class Numbering:
    """Numbers words in the order in which they first appear, so that texts need not be kept as strings."""

    def __init__(self) -> None:
        self._numbers: defaultdict[str, int] = defaultdict()
        self._numbers.default_factory = self._numbers.__len__

    def __call__(self, words: Sequence[str]) -> np.ndarray:
        """(n,) int32: the number of each word; a new word takes the next one."""
        return np.fromiter(map(self._numbers.__getitem__, words), np.int32, len(words))

    def words(self) -> list[str]:
        """All words so far, in the order of their numbers."""
        return list(self._numbers)


def vocabulary(words: Sequence[str], texts: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Number words anew by how frequent they are.

    Args:
        words: every word, in the order of its number in ``texts``.
        texts: (n,) int32 each; the most frequent words of these texts make up the vocabulary.
        size: of the vocabulary at most, with :data:`PADDING` and :data:`UNKNOWN`.

    Returns:
        (len(words),) int32: the number of each word in the vocabulary, 2 for the most frequent one and so on (equally frequent
        words in alphabetical order), :data:`UNKNOWN` for words outside.
    """
    counts = np.bincount(np.concatenate(texts), minlength=len(words)).tolist()
    present = [number for number, count in enumerate(counts) if count]
    ranked = sorted(present, key=lambda number: (-counts[number], words[number]))[: size - 2]
    numbers = np.full(len(words), UNKNOWN, np.int32)
    numbers[ranked] = np.arange(2, 2 + len(ranked))
    return numbers
