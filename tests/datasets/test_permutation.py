"""Permutations against their definitions."""

import numpy as np
import pytest

from seqmem.data.permutation import permutation


@pytest.mark.parametrize("length", [1, 2, 3, 8, 63, 64, 65, 784, 1000])
@pytest.mark.parametrize("name", ["bitreversal", "nru", 0, 7])
def test_every_step_comes_once(name, length):
    result = permutation(name, length)
    assert sorted(result.indices) == list(range(length))
    assert result.name == name


def test_bit_reversal_of_eight_is_the_textbook_one():
    assert permutation("bitreversal", 8).indices == [0, 4, 2, 6, 1, 5, 3, 7]


def test_bit_reversal_leaves_out_what_is_too_large():
    assert permutation("bitreversal", 6).indices == [0, 4, 2, 1, 5, 3]


def test_bit_reversal_follows_the_recursion():
    """The even numbers of R(2n) are 2 R(n), then come the same plus one."""
    half, whole = permutation("bitreversal", 512).indices, permutation("bitreversal", 1024).indices
    assert whole == [2 * number for number in half] + [2 * number + 1 for number in half]
    assert permutation("bitreversal", 784).indices == [number for number in whole if number < 784]


def test_a_power_of_two_is_its_own_inverse():
    indices = np.array(permutation("bitreversal", 64).indices)
    assert (indices[indices] == np.arange(64)).all()


def test_nru_is_the_seed_of_the_literature():
    expected = np.random.RandomState(92916).permutation(784).tolist()
    assert permutation("nru", 784).indices == expected == permutation(92916, 784).indices
    assert permutation(92917, 784).indices != expected
