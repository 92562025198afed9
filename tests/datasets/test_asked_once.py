"""What the four tasks of one question have in common: lengths, splits, the symbol of the question, refusals."""

import numpy as np
import pytest
import torch

from seqmem import datasets
from seqmem.errors import UserError

TASKS = {"parity": (2, 2), "even_pairs": (2, 2), "cycle_navigation": (3, 5), "modular_arithmetic": (9, 5)}
"""Symbols and classes of each task."""

every_task = pytest.mark.parametrize("name", TASKS)


def load(name, **arguments):
    few = {"train_samples": 40, "validation_samples": 3, "test_samples": 2}
    return datasets.load({"name": name, "length": 7, "min_length": 2, "test_length": 11, **few, **arguments})


@every_task
def test_sequences_end_with_the_question(name):
    symbols, classes = TASKS[name]
    data = load(name)
    spec = data.spec
    assert (spec.input_size, spec.output_size, spec.output_steps, spec.max_length) == (symbols + 1, classes, 0, 12)
    for split in datasets.SPLITS:
        for batch in data.loader(split, 8):
            assert batch.lengths is None
            assert (batch.inputs[:, -1] == symbols).all()
            assert batch.inputs[:, :-1].max() < symbols
            assert 0 <= batch.targets.min() <= batch.targets.max() < classes


@every_task
def test_splits_have_each_length_equally_often(name):
    """Training and validation have those from min_length to length, the test larger ones."""
    data = load(name)
    shorter = 1 if name == "modular_arithmetic" else 0
    tested = range(8 + shorter, 12)  # of 8 symbols, modular arithmetic has the 7 of its longest training
    assert data.sizes == {"train": 40, "validation": 3 * 6, "test": 2 * len(tested)}
    for split, lengths, count in (("validation", range(2, 8), 3), ("test", tested, 2)):
        steps = [batch.inputs.shape[1] - 1 for batch in data.loader(split, 1)]
        assert steps == [length - shorter * (length % 2 == 0) for length in lengths for _ in range(count)]
    seen = {batch.inputs.shape[1] - 1 for epoch in range(5) for batch in epoch_of(data, epoch)}
    assert seen == {length - shorter * (length % 2 == 0) for length in range(2, 8)}


def epoch_of(data, epoch, seed=0, batch_size=4):
    loader = data.loader("train", batch_size, seed)
    loader.sampler.set_epoch(epoch)
    return list(loader)


def test_lengths_of_batches_are_uniform():
    data = datasets.load({"name": "parity", "train_samples": 4000})
    counts = np.bincount([batch.inputs.shape[1] - 1 for batch in epoch_of(data, 0, batch_size=2)], minlength=41)
    assert counts[0] == 0
    assert len(counts) == 41
    assert np.abs(counts[1:] - 50).max() < 5 * np.sqrt(50)


def test_training_is_drawn_anew_by_seed_and_epoch():
    data, again = load("parity", min_length=7), load("parity", min_length=7)

    def drawn(data, epoch, seed):
        return torch.cat([batch.inputs for batch in epoch_of(data, epoch, seed)]).tolist()

    assert drawn(data, 3, 5) == drawn(again, 3, 5)
    different = {str(drawn(data, epoch, seed)) for epoch in range(3) for seed in range(3)}
    assert len(different) == 9
    fixed = load("parity", min_length=7, fresh=False)
    assert sorted(drawn(fixed, 0, 5)) == sorted(drawn(fixed, 1, 6))


@every_task
def test_a_test_at_one_length_leaves_the_training_as_it_is(name):
    given = {"name": name, "length": 7, "min_length": 2, "test_samples": 5}
    changed = datasets.at_length(given, 300)
    assert changed == {**given, "test_min_length": 300, "test_length": 300}
    data = datasets.load(changed)
    assert data.sizes["test"] == 5
    assert {batch.inputs.shape[1] for batch in data.loader("test", 2)} == {300 if name == "modular_arithmetic" else 301}
    assert data.lengths["train"] == list(range(2, 8))
    assert datasets.load(datasets.at_length(given, 3)).lengths["test"] == [3]


def test_the_longest_of_the_spec_knows_both_ends():
    assert load("parity").spec.max_length == 12
    assert load("parity", test_min_length=1, test_length=4).spec.max_length == 8


def test_impossible_lengths_are_refused():
    for arguments, message in (
        ({"min_length": 8}, r"^dataset\.min_length: got 8, expected at most dataset\.length=7$"),
        (
            {"test_length": 7},
            r"^dataset\.test_length: got 7, expected at least 8, the next that is longer than "
            r"dataset\.length=7; dataset\.test_min_length=1 also tests shorter sequences$",
        ),
        ({"test_min_length": 12}, r"^dataset\.test_min_length: got 12, expected at most dataset\.test_length=11$"),
        ({"length": 0}, r"^dataset\.length: got 0, expected greater than 0$"),
        ({"fresh": "often"}, r"^dataset\.fresh: got 'often', expected a valid boolean$"),
    ):
        with pytest.raises(UserError, match=message):
            load("parity", **arguments)
