"""Cleaning, tokens and windows, by hand."""

import doctest

import numpy as np
import pytest

from seqmem.data import text
from seqmem.errors import UserError


def test_the_examples_in_the_docstrings():
    assert doctest.testmod(text).failed == 0


def test_cleaning():
    for raw, cleaned in (
        ("", ""),
        ("abz yx", "abz yx"),
        ("The\n\n  cat", "the cat"),
        ("a\r\nb\nc", "a b c"),
        ("Don't, 42!", "don t     "),
        ("one.  Two", "one  two"),
        ("a\tb\u00e9c\u4e2d", "a b c "),
        ("   a   ", " a "),
    ):
        assert text.clean(raw) == cleaned


def test_tokens_are_a_to_z_and_the_space():
    assert text.encode(text.ALPHABET).tolist() == list(range(27))
    assert text.decode(np.arange(27)) == "abcdefghijklmnopqrstuvwxyz "
    assert text.encode("").shape == (0,)
    sentence = "the quick brown fox jumps over the lazy dog"
    assert text.decode(text.encode(sentence)) == sentence


def test_other_characters_are_refused():
    for raw, place in (("abC", "'C' at character 2"), ("\u00e9", "at character 0"), ("a\x7fb", "character 1")):
        with pytest.raises(UserError, match=f"{place}, expected a to z and spaces only"):
            text.encode(raw)


def test_every_window_is_followed_by_a_character():
    for characters, length, step in ((1000, 100, 50), (101, 100, 7), (100, 100, 7), (3, 100, 7), (58, 7, 11)):
        expected, start = [], 0
        while start + length < characters:
            expected.append(start)
            start += step
        assert text.window_starts(characters, length, step).tolist() == expected
