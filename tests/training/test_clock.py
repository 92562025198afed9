"""A system clock that jumps by decades changes no result, no duration and no file."""

import itertools
import time

import pytest
import torch

from seqmem import datasets
from seqmem.cli import commandline
from seqmem.io import archive
from tests.trials import assert_same, run_trials

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

JUMPS = (1.8e9, 0.0, 7.3e9, 1e9, 4.2e9)
"""Seconds since 1970, of the years 2027, 1970, 2201, 2001 and 2103."""


@pytest.fixture
def jumping(monkeypatch):
    """Each call returns the time of a different year."""
    moments, strftime = itertools.cycle(JUMPS), time.strftime
    monkeypatch.setattr(time, "time", lambda: next(moments))
    monkeypatch.setattr(time, "time_ns", lambda: int(next(moments) * 1e9))
    monkeypatch.setattr(time, "strftime", lambda form, at=None: strftime(form, at or time.localtime(next(moments))))


def test_a_trial_is_the_same_whatever_the_clock_says(jumping, tmp_path):
    config = commandline.compose(
        [
            "dataset=digits",
            "model=lstm",
            "model.preset=tiny",
            "train.epochs=2",
            "train.limit_train_batches=2",
            "train.limit_val_batches=1",
            "train.limit_test_batches=1",
            "runner.tensorboard=true",
        ]
    )
    data = datasets.load(config["dataset"])
    start = time.perf_counter()
    [first] = run_trials(config, data, tmp_path / "first")
    [second] = run_trials(config, data, tmp_path / "second")
    took = time.perf_counter() - start
    assert_same(first, second)
    for folder in (first, second):
        record, rows = folder.read_record(), folder.read_metrics()
        assert 0 < record["train_seconds"] <= record["seconds"] < took
        assert rows["seconds"].is_monotonic_increasing
        assert (rows["sequences_per_second"] > 0).all()
        assert record["started"][:4] in ("2027", "1970", "2201", "2001", "2103")


def test_a_model_is_saved_whatever_the_clock_says(tmp_path, monkeypatch):
    weights = {"weight": torch.arange(3.0)}
    archive.write(tmp_path / "now.zip", {"a": 1}, weights)
    for moment in JUMPS:
        monkeypatch.setattr(time, "time", lambda moment=moment: moment)
        archive.write(tmp_path / "then.zip", {"a": 1}, weights)
        assert (tmp_path / "then.zip").read_bytes() == (tmp_path / "now.zip").read_bytes()
    meta, arrays = archive.read(tmp_path / "then.zip")
    assert meta == {"a": 1}
    assert torch.equal(arrays["weight"], weights["weight"])
