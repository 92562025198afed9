"""Splits have every sample once and depend on the seed alone."""

import numpy as np
import pytest

from seqmem.data import generator, random_split, sha256, stratified_split, stratified_validation
from seqmem.errors import UserError


def test_random_split_has_every_sample_once():
    for count, fraction, validation in ((60_000, 0.1, 6000), (37, 0.1, 4), (2, 0.5, 1), (11, 0.9, 10)):
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


def test_an_empty_part_is_refused():
    for count, fraction in ((1, 0.5), (3, 0.1), (3, 0.9)):
        with pytest.raises(UserError, match=rf"={fraction} of {count} samples leaves .* expected at least 1 for each"):
            random_split(count, fraction, seed=0)


def test_stratified_split_keeps_class_frequencies():
    labels = np.repeat([0, 1, 2], [100, 200, 40])
    parts = stratified_split(labels, held_out=0.15, seed=3)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(340))
    for split, fraction in {"train": 0.7, "validation": 0.15, "test": 0.15}.items():
        assert np.abs(np.bincount(labels[parts[split]]) - fraction * np.array([100, 200, 40])).max() <= 1
    assert set(stratified_split(labels, 0.15, seed=4)["test"]) != set(parts["test"])


def test_stratified_validation_keeps_class_frequencies():
    for counts in [[1], [2], [1, 1], [1] * 18, [30] * 9, [100, 3, 1], [7, 200, 40]]:
        labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
        if len(labels) < 2:
            with pytest.raises(UserError, match="1 sample cannot be split into a training and a validation part"):
                stratified_validation(labels, 0.5, seed=0)
            continue
        for fraction in (0.01, 0.15, 0.5, 0.99):
            train, validation = stratified_validation(labels, fraction, seed=0)
            assert sorted([*train, *validation]) == list(range(len(labels)))
            assert len(validation) == min(max(round(len(labels) * fraction), 1), len(labels) - 1)
            assert (stratified_validation(labels, fraction, seed=0)[1] == validation).all()
            if len(validation) <= len(labels) - len(counts):
                assert set(labels[train]) == set(labels)
                found = np.bincount(labels[validation], minlength=len(counts))
                assert np.abs(found - fraction * np.array(counts)).max() <= 1.5


def test_stratified_validation_follows_the_seed():
    labels = np.repeat([0, 1, 2], 50)
    assert set(stratified_validation(labels, 0.2, 0)[1]) != set(stratified_validation(labels, 0.2, 1)[1])


def test_purposes_of_a_seed_are_independent():
    draws = [generator(*key).random(500) for key in [(0, "order", 0), (0, "order", 1), (1, "order", 0), (0, "split")]]
    assert np.abs(np.corrcoef(draws) - np.eye(4)).max() < 0.2
    assert (generator(0, "order", 1).random(5) == draws[1][:5]).all()


def test_sha256_sees_values_and_not_memory_layout():
    array = np.arange(12, dtype=np.int64).reshape(3, 4)
    assert sha256(array) == sha256(array.astype(">i8")) == sha256(np.asfortranarray(array)) == sha256(array[:2], array[2:])
    assert sha256(array) != sha256(array[::-1])
