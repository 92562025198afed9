"""Splits of series: drawn, stratified, of whole groups, given; windows; blocks in random order."""

import numpy as np
import pytest

from seqmem.data.blocks import MIXED, BlockSampler
from seqmem.data.partition import partition
from seqmem.data.segments import Segments, by_time
from seqmem.data.splits import SPLITS
from seqmem.errors import UserError

FRACTIONS = {"validation": 0.2, "test": 0.2}


def assert_partition(parts, count):
    together = np.concatenate([parts[split] for split in SPLITS])
    assert sorted(together.tolist()) == list(range(count))
    assert all(len(part) for part in parts.values())
    assert all((np.diff(part) > 0).all() for part in parts.values())


@pytest.mark.parametrize("count", [3, 4, 5, 10, 101])
@pytest.mark.parametrize("classes", [None, 2, 50])
def test_every_series_is_in_one_split(count, classes):
    for seed in range(3):
        numbers = None if classes is None else np.arange(count) % classes
        parts = partition(count, FRACTIONS, seed, numbers)
        assert_partition(parts, count)
        if count == 101:
            assert (len(parts["validation"]), len(parts["test"])) == (20, 20)


@pytest.mark.parametrize("groups", [3, 4, 7, 30])
@pytest.mark.parametrize("stratified", [False, True])
def test_groups_stay_together(groups, stratified):
    owners = [f"g{k % groups}" for k in range(60)]
    for seed in range(3):
        parts = partition(60, FRACTIONS, seed, np.arange(60) // 3 % 2 if stratified else None, owners)
        assert_partition(parts, 60)
        found = [{owners[k] for k in part} for part in parts.values()]
        assert sum(map(len, found)) == groups
        if groups == 30:
            assert all(8 <= len(parts[split]) <= 16 for split in FRACTIONS)


@pytest.mark.parametrize("fractions", [(0.15, 0.15), (0.1, 0.4), (0.3, 0.6), (0.2, 0.6), (0.45, 0.45)])
def test_groups_with_classes_have_the_requested_fractions(fractions):
    asked = dict(zip(("validation", "test"), fractions, strict=True))
    classes, owners = np.arange(600) // 3 % 4, [f"g{k // 3}" for k in range(600)]
    for seed in range(3):
        parts = partition(600, asked, seed, classes, owners)
        assert_partition(parts, 600)
        for split, fraction in asked.items():
            assert len(parts[split]) / 600 == pytest.approx(fraction, abs=0.03)
            assert np.bincount(classes[parts[split]]) / len(parts[split]) == pytest.approx(0.25, abs=0.06)


def test_given_splits_are_kept_and_the_rest_is_drawn():
    given = [("train", "", "test")[k % 3] for k in range(30)]
    parts = partition(30, FRACTIONS, 0, None, None, given)
    assert parts["test"].tolist() == list(range(2, 30, 3))
    assert_partition(parts, 30)
    assert len(parts["validation"]) == 4  # a fifth of those that are not given


def test_too_few_series_or_groups_are_refused():
    for count in (0, 1, 2):
        with pytest.raises(UserError, match=r"too few series|no series"):
            partition(count, FRACTIONS, 0)
    with pytest.raises(UserError, match=r"dataset\.validation_fraction: got 1 group left"):
        partition(9, FRACTIONS, 0, None, ["a", "b"] * 4 + ["a"])
    with pytest.raises(UserError, match="got series of group 'a' in train and in test"):
        partition(4, FRACTIONS, 0, None, ["a", "a", "b", "b"], ["train", "test", "", ""])
    with pytest.raises(UserError, match="no series is left for training"):
        partition(2, FRACTIONS, 0, None, None, ["validation", "test"])


def test_windows_cover_a_segment_and_share_the_horizon():
    for steps in range(4, 40):
        for window, horizon in ((5, 0), (5, 3), (1, 2), (100, 3)):
            cut = Segments(np.array([7]), np.array([10]), np.array([steps])).windows(window, horizon)
            assert (cut.series == 7).all()
            assert (cut.lengths > horizon).all()
            assert (cut.lengths <= window + horizon).all()
            inputs = [k for b, n in zip(cut.begins, cut.lengths, strict=True) for k in range(b, b + n - horizon)]
            assert inputs == list(range(10, 10 + steps - horizon))


def test_parts_by_time_follow_each_other():
    parts = by_time(np.array([100, 57]), FRACTIONS, ["a", "b"], 3)
    for k, length in enumerate((100, 57)):
        ends = [int(parts[split].begins[k] + parts[split].lengths[k]) for split in SPLITS]
        begins = [int(parts[split].begins[k]) for split in SPLITS]
        assert begins == [0, *ends[:-1]]
        assert ends[-1] == length


@pytest.mark.parametrize(("size", "block"), [(1, 4), (4, 4), (1000, 7), (50, 100)])
def test_blocks_are_a_permutation_that_depends_on_seed_and_epoch(size, block):
    sampler = BlockSampler(size, block, 0)
    first = list(sampler)
    assert sorted(first) == list(range(size))
    assert first == list(BlockSampler(size, block, 0))
    sampler.skipped = size // 2
    assert list(sampler) == first[size // 2 :]
    sampler.skipped = 0
    sampler.set_epoch(1)
    if size > 10:
        assert list(sampler) != first != list(BlockSampler(size, block, 1))


def test_series_that_follow_each_other_in_time_are_near_each_other_in_the_file():
    order = list(BlockSampler(10_000, 10, 0))
    for begin in range(0, 10_000, MIXED * 10):
        assert len({k // 10 for k in order[begin : begin + MIXED * 10]}) == MIXED
    assert np.corrcoef(order, np.arange(10_000))[0, 1] < 0.2
