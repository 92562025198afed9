"""Splits that are drawn from both parts of a problem of the UEA archive."""

import numpy as np
import pytest
import torch

from seqmem import datasets
from seqmem.data import valid_steps
from seqmem.errors import UserError
from seqmem.results.record import digest
from tests.datasets.uea.cases import CASES, everything


def numbered_cases(first, last):
    """Series of two channels that begin with their number, of unequal lengths."""
    return [([[float(k), *[k / 7] * (k % 5)], [-float(k)]], "abc"[k % 3]) for k in range(first, last)]


def test_both_parts_are_drawn_into_three_splits_by_seed(make):
    train, test = numbered_cases(0, 90), numbered_cases(90, 130)

    def drawn(**arguments):
        data = make(train, test, standardize=False, resplit=True, **arguments)
        numbers = {split: everything(data, split).inputs[:, 0, 0].long().tolist() for split in datasets.SPLITS}
        for split, found in numbers.items():
            assert everything(data, split).targets.tolist() == [k % 3 for k in found]
        return data, numbers

    data, numbers = drawn()
    assert data.sizes == {"train": 91, "validation": 19, "test": 20}  # floor(0.7 130), floor(0.85 130)
    assert sorted(k for found in numbers.values() for k in found) == list(range(130))
    assert drawn()[1] == numbers
    other, changed = drawn(split_seed=1)
    assert changed != numbers
    assert other.describe()["sha256"] != data.describe()["sha256"]
    assert all(any(k < 90 for k in found) and any(k >= 90 for k in found) for found in numbers.values())
    assert drawn(validation_fraction=0.25)[0].sizes == {"train": 65, "validation": 32, "test": 33}
    # Each series is in the training split in 70 % of the draws: the mean over 40 draws of 130 within five deviations.
    among = np.array([np.isin(np.arange(130), drawn(split_seed=seed)[1]["train"]) for seed in range(40)])
    assert abs(among[:, :90].mean() - 0.7) < 5 * (0.7 * 0.3 / (40 * 90)) ** 0.5


@pytest.mark.parametrize("resplit", [True, False])
def test_each_trial_has_the_splits_of_its_seed(make, resplit):
    arguments = numbered_cases(0, 40), numbered_cases(40, 60)
    data = make(*arguments, resplit=resplit, split_seed=None)
    for seed in (0, 3, 4):
        trial, expected = data.of_trial(seed), make(*arguments, resplit=resplit, split_seed=seed)
        assert trial.describe() == expected.describe()
        assert trial.of_trial(7) is trial
        for split in datasets.SPLITS:
            torch.testing.assert_close(everything(trial, split), everything(expected, split), rtol=0, atol=0)
    sums = [data.of_trial(seed).describe()["sha256"]["test"] for seed in (3, 4)]
    assert (sums[0] == sums[1]) is not resplit
    assert data.describe() == make(*arguments, resplit=resplit, split_seed=None).describe()
    assert data.describe()["seed"] is None
    more = make(arguments[0], numbered_cases(40, 61), resplit=resplit, split_seed=None)
    assert more.describe()["sha256"] != data.describe()["sha256"]


def test_drawn_splits_are_standardised_by_their_own_training_split(make):
    plain = make(numbered_cases(0, 40), numbered_cases(40, 60), standardize=False, resplit=True)
    data = make(numbered_cases(0, 40), numbered_cases(40, 60), resplit=True)
    train = everything(plain, "train")
    seen = train.inputs[valid_steps(train.lengths, train.inputs.shape[1])]
    expected = (everything(plain, "test").inputs - seen.mean(0)) / seen.std(0, correction=0)
    test = everything(data, "test")
    valid = valid_steps(test.lengths, test.inputs.shape[1])
    torch.testing.assert_close(test.inputs[valid][:, 0], expected[valid][:, 0], rtol=1e-4, atol=1e-5)


def test_a_series_of_both_parts_is_in_one_split_alone(make):
    cases = numbered_cases(0, 20)
    data = make(cases, cases[10:], resplit=True)
    assert sum(data.sizes.values()) == 20


def test_splits_without_a_series_are_refused_with_their_sizes(make):
    for fraction, sizes in ((0.15, "2 for training, 0 for validation and 1 for test"), (0.6, "0 for training, 1 for")):
        with pytest.raises(UserError, match=rf"fraction: got {fraction} of the 3 different series .* leaves {sizes}"):
            make(CASES, CASES, resplit=True, validation_fraction=fraction)


def test_a_trial_of_before_has_the_checksum_of_its_settings():
    config = {"dataset": {"name": "uea", "problem": "Made"}}
    assert digest(config) == digest({"dataset": {**config["dataset"], "resplit": False}})
    assert digest(config) != digest({"dataset": {**config["dataset"], "resplit": True}})
