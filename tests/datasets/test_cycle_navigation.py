"""Cycle navigation: places after moves one by one, and uniform moves."""

import math

import numpy as np

from seqmem import datasets


def walked(moves):
    place = 0
    for move in moves:
        if move == 2:
            place = 0 if place == 4 else place + 1
        elif move == 0:
            place = 4 if place == 0 else place - 1
    return place


def test_answers_are_the_last_places():
    data = datasets.load({"name": "cycle_navigation"})
    for length in (1, 2, 40, 700):
        inputs, targets = data.draw(np.random.default_rng(length), 60, length)
        assert inputs.shape == (60, length + 1)
        assert (inputs[:, -1] == 3).all()
        assert [walked(row) for row in inputs[:, :-1].tolist()] == targets.tolist()


def test_all_sequences_are_equally_likely():
    inputs, targets = datasets.load({"name": "cycle_navigation"}).draw(np.random.default_rng(0), 27_000, 3)
    counts = np.bincount(inputs[:, :-1] @ 3 ** np.arange(3), minlength=27)
    assert len(counts) == 27
    assert np.abs(counts - 1000).max() < 5 * math.sqrt(1000)
    # Of the 27 sequences, 7 sum to 0, 6 to 1 or -1, and 4 to 2 or -2 (with 3, which is place 3, and -3, place 2).
    places = np.bincount(targets, minlength=5)
    assert np.abs(places - 1000 * np.array([7, 6, 4, 4, 6])).max() < 5 * math.sqrt(7000)
