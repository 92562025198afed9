"""Steps in the patches: the backbone covers all, none is later than its step, and every subset is equally likely."""

import math

import numpy as np
import pytest

from seqmem.errors import UserError
from seqmem.layers.igloo.sampling import sample_local_patches, sample_patches


def random():
    return np.random.default_rng(0)


def test_the_backbone_covers_every_step():
    for size in (1, 2, 3, 4, 7):
        for last in (0, 1, 2, 3, 5, 6, 7, 41, 100):
            windows = last // max(size - 1, 1) + 1
            [patches] = sample_patches(random(), np.array([last]), windows, size, backbone=True)
            assert set(patches.flatten()) == set(range(last + 1))
            for number, patch in enumerate(patches):
                start = last - number * max(size - 1, 1)
                assert patch.tolist() == [max(start - q, 0) for q in range(size)]


def test_the_backbone_of_every_lighthouse():
    ends = np.array([0, 3, 6, 40])
    sampled = sample_patches(random(), ends, 16, 4, backbone=True)
    assert sampled.shape == (4, 16, 4)
    for end, patches in zip(ends, sampled, strict=True):
        assert set(patches[: end // 3 + 1].flatten()) == set(range(end + 1))
    assert not any((np.diff(patch) == -1).all() for patch in sampled[3, 14:])


def test_too_few_patches_for_the_backbone():
    with pytest.raises(UserError, match=r"nb_patches: got 33, expected at least 34 .* covers 100 steps with patches of 4;"):
        sample_patches(random(), np.array([99]), 33, 4, backbone=True)
    assert sample_patches(random(), np.array([99]), 33, 4, backbone=False).shape == (1, 33, 4)


def test_patches_are_of_different_steps_up_to_their_own():
    ends = np.arange(30)
    for size in (1, 4, 5):
        for end, patches in zip(ends, sample_patches(random(), ends, 500, size, backbone=False), strict=True):
            assert patches.min() >= 0
            assert patches.max() <= end
            if end >= size:
                assert all(len(set(patch)) == size for patch in patches.tolist())
                assert set(patches.flatten()) == set(range(end + 1))


def test_every_subset_is_equally_likely():
    [patches] = sample_patches(random(), np.array([5]), 20_000, 3, backbone=False)
    _, counts = np.unique(np.sort(patches), axis=0, return_counts=True)
    expected = 20_000 / math.comb(6, 3)
    assert len(counts) == math.comb(6, 3)
    assert np.abs(counts - expected).max() < 5 * math.sqrt(expected)


@pytest.mark.parametrize("stretch", [1, 7, 60])
def test_local_patches_end_at_their_step_and_stay_near_it(stretch):
    ends = np.arange(120)
    for size in (1, 2, 4):
        seen = [set() for _ in ends]
        for end, patches in zip(ends, sample_local_patches(random(), ends, 9, size, stretch), strict=True):
            assert patches.min() >= 0
            assert patches.max() <= end
            if end < size:
                continue
            oldest = max(min(end // stretch * stretch - 1, end - 4 * size), 0)
            for patch in patches:
                assert patch[-1] == end
                assert len(set(patch)) == size
                assert patch[:-1].min(initial=end) >= oldest
            seen[end] = set(patches[:, :-1].flatten())
        # Not t - 1 alone, as in the original at a stretch factor of 1.
        assert size == 1 or all(len(steps) > 2 for steps in seen[10:])
