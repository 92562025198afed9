"""Splits cover everything once and depend on the seed alone."""

import numpy as np
import pytest

from seqmem.data.provenance import sha256
from seqmem.data.seeds import generator
from seqmem.data.splits import random_split, stratified_split
from seqmem.errors import UserError


@pytest.mark.parametrize(("count", "fraction", "validation"), [(60_000, 0.1, 6000), (37, 0.1, 4), (2, 0.5, 1), (11, 0.9, 10)])
def test_random_split_covers_everything_once(count, fraction, validation):
    train, held_out = random_split(count, fraction, seed=0)
    assert len(held_out) == validation
    assert sorted([*train, *held_out]) == list(range(count))


def test_random_split_follows_the_seed():
    first, again, other = (random_split(1000, 0.1, seed) for seed in (0, 0, 1))
    assert (first[0] == again[0]).all()
    assert set(first[1]) != set(other[1])


def test_training_part_is_in_random_order():
    train, _ = random_split(1000, 0.1, seed=0)
    assert abs(np.corrcoef(train, np.arange(len(train)))[0, 1]) < 0.15


@pytest.mark.parametrize(("count", "fraction"), [(1, 0.5), (3, 0.1), (3, 0.9)])
def test_an_empty_part_is_refused(count, fraction):
    with pytest.raises(
        UserError, match=rf"validation_fraction={fraction} of {count} samples leaves .* expected at least 1 for each"
    ):
        random_split(count, fraction, seed=0)


def test_stratified_split_keeps_the_share_of_every_class():
    labels = np.repeat([0, 1, 2], [100, 200, 40])
    parts = stratified_split(labels, held_out=0.15, seed=3)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(340))
    for split, share in {"train": 0.7, "validation": 0.15, "test": 0.15}.items():
        assert np.abs(np.bincount(labels[parts[split]]) - share * np.array([100, 200, 40])).max() <= 1
    assert set(stratified_split(labels, 0.15, seed=4)["test"]) != set(parts["test"])


def test_purposes_of_a_seed_are_independent():
    draws = [generator(*key).random(500) for key in [(0, "order", 0), (0, "order", 1), (1, "order", 0), (0, "split")]]
    assert np.abs(np.corrcoef(draws) - np.eye(4)).max() < 0.2
    assert (generator(0, "order", 1).random(5) == draws[1][:5]).all()


def test_sha256_sees_values_and_not_memory_layout():
    array = np.arange(12, dtype=np.int64).reshape(3, 4)
    assert sha256(array) == sha256(array.astype(">i8")) == sha256(np.asfortranarray(array)) == sha256(array[:2], array[2:])
    assert sha256(array) != sha256(array[::-1])
