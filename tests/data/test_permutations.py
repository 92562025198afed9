"""Permutations against their definitions."""

import numpy as np

from seqmem.data import named_permutation


def test_every_step_is_taken_once():
    for name in ["bitreversal", "nru", 7]:
        for length in (1, 2, 3, 8, 63, 64, 65, 784, 1000):
            result = named_permutation(name, length)
            assert sorted(result.indices) == list(range(length))
            assert result.name == name


def test_bit_reversal_of_short_sequences():
    assert named_permutation("bitreversal", 8).indices == [0, 4, 2, 6, 1, 5, 3, 7]
    assert named_permutation("bitreversal", 6).indices == [0, 4, 2, 1, 5, 3]


def test_bit_reversal_follows_the_recursion():
    """The first half of R(2n) is 2 R(n), the second half 2 R(n) + 1."""
    half, whole = named_permutation("bitreversal", 512).indices, named_permutation("bitreversal", 1024).indices
    assert whole == [2 * number for number in half] + [2 * number + 1 for number in half]
    assert named_permutation("bitreversal", 784).indices == [number for number in whole if number < 784]


def test_a_power_of_two_is_its_own_inverse():
    indices = np.array(named_permutation("bitreversal", 64).indices)
    assert (indices[indices] == np.arange(64)).all()


def test_nru_is_the_seed_of_the_literature():
    expected = np.random.RandomState(92916).permutation(784).tolist()
    assert named_permutation("nru", 784).indices == expected == named_permutation(92916, 784).indices
    assert named_permutation(92917, 784).indices != expected
