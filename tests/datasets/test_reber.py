"""The embedded Reber grammar, against a regular expression of it."""

import re

import numpy as np
import pytest
import torch

from seqmem import datasets
from seqmem.datasets.reber import LETTERS, draw_strings, is_valid
from seqmem.errors import UserError

SIZES = {"train_samples": 3000, "validation_samples": 20, "test_samples": 10}

# From the second T loop (state 3) on: T* then V, or T* V P X again through states 5 and 4.
_REST = "(?:T*VPX)*T*V(?:V|PS)"
GRAMMAR = re.compile(f"B([TP])B(?:TS*X(?:S|X{_REST})|P{_REST})E\\1E")


def texts(strings, lengths):
    return ["".join(LETTERS[number] for number in row[:length]) for row, length in zip(strings, lengths, strict=True)]


@pytest.mark.parametrize(("length", "shortest"), [(60, 30), (9, 9), (11, 10)])
def test_classes_are_those_of_the_grammar(length, shortest):
    data = datasets.load({"name": "reber", "length": length, "shortest": shortest, **SIZES})
    batch = data.batch("train", torch.arange(3000))
    assert shortest <= batch.lengths.min() <= batch.lengths.max() <= length
    assert batch.targets.sum() == 1500
    for text, valid, padding in zip(
        texts(batch.inputs.tolist(), batch.lengths.tolist()), batch.targets.tolist(), batch.inputs, strict=True
    ):
        assert bool(GRAMMAR.fullmatch(text)) == bool(valid)
        assert not padding[len(text) :].any()
    assert len(batch.lengths.unique()) == length - shortest + 1


def test_a_spliced_string_is_wrong_at_one_cut_only():
    data = datasets.load({"name": "reber", **SIZES})
    batch = data.batch("train", torch.arange(3000))
    spliced = batch.targets == 0
    found = texts(batch.inputs[spliced].tolist(), batch.lengths[spliced].tolist())
    assert all(text[0] == "B" and text[-1] == "E" for text in found)
    far = [text for text in found if GRAMMAR.fullmatch(text[:-2] + text[1] + "E")]
    assert len(far) > 10  # strings of which only the second letter shows that the last but one is wrong


def test_walks_have_the_probabilities_of_the_graph():
    """Inner strings of seven letters; both edges of a state are equally likely."""
    random = np.random.default_rng(0)
    inner = [text[2:-2] for text in texts(draw_strings(random, np.full(20_000, 11), 11), [11] * 20_000)]
    chances = {"BTSSXSE": 2**-5, "BTXXVVE": 2**-5, "BPTTVVE": 2**-5, "BPTVPSE": 2**-5}
    for text in set(inner):
        assert text in chances, text
    counts = np.array([inner.count(text) for text in chances])
    expected = 20_000 / len(chances)
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_long_strings_can_be_drawn():
    lengths = np.array([5000, 4999])
    strings = draw_strings(np.random.default_rng(0), lengths, 5000)
    assert is_valid(strings, lengths).all()
    assert all(GRAMMAR.fullmatch(text) for text in texts(strings, lengths))


def test_impossible_lengths_are_refused():
    with pytest.raises(UserError, match=r"^dataset\.shortest: got 30, expected at most dataset\.length=20$"):
        datasets.load({"name": "reber", "length": 20})
    with pytest.raises(UserError, match=r"^dataset\.length: got 8, expected greater than or equal to 9$"):
        datasets.check({"name": "reber", "length": 8})
