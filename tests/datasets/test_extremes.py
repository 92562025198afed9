"""Extreme values in a user's files and settings: finite batches, or an error in one line."""

import pytest
import torch

from seqmem import datasets
from seqmem.errors import UserError
from tests.tiny_files import write_ts

CONSTANT = [([[2.0, 2.0, 2.0], [1.0, 2.0, 4.0]], label) for label in "aabbab"]


def load(tmp_path, cases, **arguments):
    for part in ("TRAIN", "TEST"):
        write_ts(tmp_path, "Made", part, cases)
    return datasets.load({"name": "uea", "problem": "Made", "data_dir": str(tmp_path), "validation_fraction": 0.5, **arguments})


def test_a_series_with_an_extreme_value_gives_finite_batches(tmp_path):
    for value in [1e30, -3e38, 1e-45, float("nan"), float("inf")]:
        cases = [*CONSTANT, ([[2.0, 2.0], [value, 3.0]], "a"), ([[value], [1.0]], "b")]
        for standardize in (True, False):
            data = load(tmp_path, cases, standardize=standardize)
            for split in datasets.SPLITS:
                assert data.batch(split, torch.arange(data.sizes[split])).inputs.isfinite().all()


def test_a_value_beyond_float32_is_refused(tmp_path):
    for standardize in (True, False):
        with pytest.raises(UserError, match=r"Made_TRAIN\.ts, line \d+: got a value of size 1e\+300, expected at most 3\.4e38"):
            load(tmp_path, [*CONSTANT, ([[2.0], [-1e300]], "a")], standardize=standardize)


def test_settings_beyond_float32_are_refused():
    for arguments, message in (
        ({"name": "white_noise", "rms": 1e39}, r"dataset\.rms: got 1e\+39, expected less than or equal to 1000000"),
        ({"name": "sinusoids", "noise": 1e300}, r"dataset\.noise: got 1e\+300, expected less than or equal to 1000000"),
        ({"name": "sinusoids", "noise": float("nan")}, r"dataset\.noise: got nan, expected"),
    ):
        with pytest.raises(UserError, match=message):
            datasets.check(arguments)


def test_times_beyond_float32_are_refused(tiny_ct):
    with pytest.raises(UserError, match=r"have a value beyond 3\.4e38"):
        datasets.load({"name": "ct", "data_dir": str(tiny_ct), "timestamp": True, "train_ts": 1e300})
