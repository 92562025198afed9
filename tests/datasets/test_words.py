"""The tokenizer and the vocabulary, against tables and against counting by hand."""

import string
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from seqmem.datasets.words import UNKNOWN, Numbering, tokenize, tokens_of, vocabulary


def test_tokens():
    for text, tokens in (
        ("", []),
        (" \n\t ", []),
        ("A plot? No!", ["a", "plot", "?", "no", "!"]),
        ("It's the '70s, rock'n'roll", ["it's", "the", "'", "70s", ",", "rock'n'roll"]),
        ("the actors' voices", ["the", "actors", "'", "voices"]),
        ("good.<br /><br />Bad<br>ugly<BR/>", ["good", ".", "bad", "ugly"]),
        ("8/10...", ["8", "/", "10", ".", ".", "."]),
        ("_Alien_ <i>", ["_", "alien", "_", "<", "i", ">"]),
        ("Clich\u00e9 \u21161", ["clich\u00e9", "\u2116", "1"]),
        ("well-made", ["well", "-", "made"]),
    ):
        assert tokenize(text) == tokens


@given(st.text(st.sampled_from(string.ascii_letters + string.digits + "'.-_ \n\t\u00e9"), max_size=40))
def test_tokens_have_every_character_except_white_space(text):
    tokens = tokenize(text)
    assert "".join(tokens) == "".join(text.lower().split())
    assert all(len(token) == 1 or (token[0].isalnum() and token[-1].isalnum()) for token in tokens)


def test_words_have_different_numbers():
    numbering = Numbering()
    texts = [["b", "a", "b"], [], ["c", "a"]]
    numbers = [numbering(words) for words in texts]
    assert [array.dtype for array in numbers] == [np.int32] * 3
    words = numbering.words()
    assert [[words[number] for number in array] for array in numbers] == texts
    assert sorted(words) == ["a", "b", "c"]


def test_the_most_frequent_words_come_first():
    for size in [3, 7, 100]:
        random = np.random.default_rng(0)
        words = [f"word{number}" for number in random.permutation(20)]
        texts = [random.integers(0, 15, count).astype(np.int32) for count in (37, 1, 60)]
        known = vocabulary(words, texts, size)
        found = tokens_of(words, known)
        counts = Counter(words[number] for text in texts for number in text)
        ranked = sorted(counts, key=lambda word: (-counts[word], word))[: size - 2]
        assert known == ranked
        assert dict(zip(words, found.tolist(), strict=True)) == {
            word: 2 + ranked.index(word) if word in ranked else UNKNOWN for word in words
        }
        assert found.dtype == np.int32
