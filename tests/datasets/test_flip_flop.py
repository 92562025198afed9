"""The flip-flop language: bits read one by one, and frequencies of instructions."""

import math

import numpy as np
import pytest
import torch

from seqmem import datasets
from seqmem.data import IGNORE_INDEX
from seqmem.data.places import at_counted_steps
from seqmem.errors import UserError

SYMBOLS = "wri01"


def load(**arguments):
    few = {"train_samples": 30, "validation_samples": 20, "test_samples": 10}
    return datasets.load({"name": "flip_flop", **few, **arguments})


def text(row):
    return "".join(SYMBOLS[token] for token in row)


@pytest.mark.parametrize("arguments", [{}, {"length": 4}, {"length": 30, "p": 0.1, "test_p": 0.98}])
def test_reads_are_followed_by_the_bit_that_was_written_last(arguments):
    data = load(**arguments)
    assert (data.spec.input_size, data.spec.output_size, data.spec.output_steps) == (5, 5, None)
    for split in datasets.SPLITS:
        for batch in data.loader(split, 7):
            for row, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
                symbols, memory = text(row), None
                assert len(symbols) == data.spec.max_length
                assert symbols[0] == "w"
                assert symbols[-2] == "r"
                for place in range(0, len(symbols), 2):
                    instruction, bit = symbols[place : place + 2]
                    assert instruction in "wri"
                    assert bit in "01"
                    if instruction == "w":
                        memory = bit
                    if instruction == "r":
                        assert bit == memory
                        assert targets[place] == row[place + 1] == SYMBOLS.index(memory)
                    else:
                        assert targets[place] == IGNORE_INDEX
                    assert targets[place + 1] == IGNORE_INDEX


def test_a_model_computes_its_outputs_at_reads_alone():
    data = load(length=30)
    batch = data.batch("test", torch.arange(10))
    reads = batch.inputs == SYMBOLS.index("r")
    found = at_counted_steps(batch)
    assert data.spec.sparse_targets
    assert found.targets.shape == (10, reads.sum(1).max())
    assert (batch.inputs.gather(1, found.places)[found.targets != IGNORE_INDEX] == SYMBOLS.index("r")).all()


def instructions(data, split):
    batch = data.batch(split, torch.arange(data.sizes[split]))
    return batch.inputs[:, ::2].numpy(), batch.inputs[:, 1::2].numpy() - 3


@pytest.mark.parametrize(("p", "test_p"), [(0.8, None), (0.8, 0.98), (0.25, 0.1), (0.0, 1.0)])
def test_instructions_have_their_probabilities(p, test_p):
    data = load(p=p, test_p=test_p, train_samples=200, test_samples=200)
    for split, each in (("train", p), ("validation", p), ("test", p if test_p is None else test_p)):
        found = instructions(data, split)[0][:, 1:-1].flatten()
        expected = len(found) * np.array([(1 - each) / 2, (1 - each) / 2, each])
        assert (np.abs(np.bincount(found, minlength=3) - expected) <= 5 * np.sqrt(expected)).all(), split


def test_instructions_are_independent_and_other_bits_uniform():
    found, bits = instructions(load(p=1 / 3, train_samples=300), "train")
    inner = found[:, 1:-1]
    pairs = np.bincount((inner[:, :-1] * 3 + inner[:, 1:]).flatten(), minlength=9)
    expected = 300 * 253 / 9
    assert np.abs(pairs - expected).max() < 5 * math.sqrt(expected)
    for instruction in (0, 2):
        chosen = bits[found == instruction]
        assert abs(chosen.sum() - len(chosen) / 2) < 5 * math.sqrt(len(chosen) / 4)
    # A bit that is ignored says nothing about the one that a read returns.
    returned = bits[:, -1] == bits[:, 1]
    assert abs(returned[found[:, 1] == 2].sum() - (found[:, 1] == 2).sum() / 2) < 5 * math.sqrt(300 / 3 / 4)


def test_a_length_is_that_of_all_splits():
    assert load(length=8).batch("test", torch.arange(3)).inputs.shape == (3, 8)
    assert datasets.at_length({"name": "flip_flop", "p": 0.5}, 1024) == {"name": "flip_flop", "p": 0.5, "length": 1024}


def test_impossible_values_are_refused():
    for arguments, message in (
        ({"length": 513}, r"^dataset\.length: got 513, expected an even number; did you mean 512 or 514\?$"),
        ({"length": 2}, r"^dataset\.length: got 2, expected greater than or equal to 4$"),
        ({"p": 1.5}, r"^dataset\.p: got 1\.5, expected less than or equal to 1$"),
        ({"test_p": -0.1}, r"^dataset\.test_p: got -0\.1, expected "),
    ):
        with pytest.raises(UserError, match=message):
            load(**arguments)
