"""Modular arithmetic: values by Python's own arithmetic, and uniform digits and operators."""

import math

import numpy as np

from seqmem import datasets
from seqmem.datasets.modular_arithmetic import values

SYMBOLS = "01234+-*"


def evaluated(tokens):
    return eval("".join(SYMBOLS[token] for token in tokens)) % 5


def test_answers_are_values():
    data = datasets.load({"name": "modular_arithmetic"})
    for length in (1, 2, 3, 4, 7, 40, 41, 501):
        inputs, targets = data.draw(np.random.default_rng(length), 60, length)
        odd = length if length % 2 else length - 1
        assert inputs.shape == (60, odd + 1)
        assert (inputs[:, -1] == 9).all()
        assert inputs[:, :-1:2].max() <= 4
        assert [evaluated(row) for row in inputs[:, :-1].tolist()] == targets.tolist()


def test_values_by_hand():
    for text, value in (("2*3-4*4", 0), ("1-2-3", 1), ("0-1*2", 3), ("4*0*3+2", 2), ("3", 3), ("2-3*0-1", 1)):
        assert values(np.array([[SYMBOLS.index(symbol) for symbol in text]])).tolist() == [value], text


def test_long_products_do_not_overflow():
    """In 32 bits, the product of sixteen fours is 0."""
    for count in (16, 33, 1000):
        product = np.full((1, 2 * count - 1), 4)
        product[:, 1::2] = SYMBOLS.index("*")
        assert values(product).tolist() == [pow(4, count, 5)]


def test_digits_and_operators_are_uniform():
    inputs, _ = datasets.load({"name": "modular_arithmetic"}).draw(np.random.default_rng(0), 4500, 5)
    digits, operators = inputs[:, :-1:2].astype(int), inputs[:, 1:-1:2].astype(int) - 5
    counts = np.bincount((digits[:, 0] * 5 + digits[:, 1]) * 3 + operators[:, 0], minlength=75)
    assert np.abs(counts - 60).max() < 5 * math.sqrt(60)
    assert np.abs(np.bincount(operators[:, 0] * 3 + operators[:, 1], minlength=9) - 500).max() < 5 * math.sqrt(500)
    assert np.abs(np.bincount(digits[:, 2], minlength=5) - 900).max() < 5 * math.sqrt(900)
