"""Parquet tables in memory and by row groups."""

from dataclasses import replace
from datetime import timedelta

import pytest
import torch

from seqmem.data.preparation import Preparation
from seqmem.errors import UserError
from seqmem.io.collection import Reading
from seqmem.io.sources import read_source
from seqmem.io.tables import DURATIONS
from seqmem.training.evaluation.new_series import times_at
from tests.datasets.files.tables import EXPECTED, NAMES, WHOLE, everything, loaded, long


def frame(rows, **columns):
    return pytest.importorskip("pandas").DataFrame({name: [value(k) for k in range(rows)] for name, value in columns.items()})


def test_parquet(load, tmp_path):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    rows = [row.split(",") for row in long().splitlines()]
    frame = pd.DataFrame(rows[1:], columns=rows[0]).astype({"time": int, "x": "float32", "y": float})
    frame.to_parquet(tmp_path / "own.parquet", row_group_size=7)
    for in_memory in (None, True, False):
        data = load(None, "own.parquet", in_memory=in_memory, **WHOLE)
        assert everything(data) == EXPECTED
    frame.sample(frac=1, random_state=0).to_parquet(tmp_path / "own.parquet")
    assert everything(load(None, "own.parquet", **WHOLE)) == EXPECTED
    with pytest.raises(
        UserError, match=r"read by row groups, which needs the rows of each series one after the other; sort it"
    ):
        load(None, "own.parquet", in_memory=False)
    with pytest.raises(UserError, match="expected a Parquet file"):
        load(b"no parquet", "own.parquet")


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_parquet_table_keeps_its_splits(tmp_path, in_memory):
    pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    splits = ["train"] * 9 + ["validation"] * 7 + ["test"] * 4
    table = frame(100, id=lambda k: NAMES[k // 5], time=lambda k: k % 5, a=float, label=lambda k: k // 5 % 2)
    table["split"] = [splits[k // 5] for k in range(100)]
    table.to_parquet(tmp_path / "own.parquet", row_group_size=17)
    data = loaded(tmp_path / "own.parquet", in_memory=in_memory, standardize=False)
    assert data.sizes == {"train": 9, "validation": 7, "test": 4}
    assert data.batch("test", torch.arange(4)).inputs[:, 0, 0].tolist() == [80, 85, 90, 95]
    table["split"] = "first"
    table.to_parquet(tmp_path / "own.parquet", row_group_size=17)
    assert loaded(tmp_path / "own.parquet", in_memory=in_memory).sizes == {"train": 14, "validation": 3, "test": 3}


def test_a_wide_parquet_table_is_not_read_by_row_groups(tmp_path):
    pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    path = tmp_path / "own.parquet"
    frame(20, id=NAMES.__getitem__, t0=float, t1=float, t2=float, label=lambda k: k % 2).to_parquet(path)
    assert loaded(path).spec.max_length == 3
    for more in ({}, {"layout": "wide"}):
        with pytest.raises(UserError, match=r"own.parquet is read by row groups, .* but each row is a series; give .*true"):
            loaded(path, in_memory=False, **more)


@pytest.mark.parametrize("in_memory", [True, False])
def test_durations_are_times_in_seconds_and_not_dates(tmp_path, in_memory):
    pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    table = frame(40, id=lambda k: NAMES[k // 2], time=lambda k: timedelta(minutes=k), a=float, label=lambda k: k // 2 % 2)
    table.to_parquet(tmp_path / "own.parquet")
    found = read_source(tmp_path / "own.parquet", Reading(in_memory=in_memory))
    assert (found.is_dated, found.roles["time"]) == (False, "time, durations in seconds")
    assert found.origins.tolist() == [120.0 * k for k in range(20)]
    assert found.times[0:4].tolist() == [0, 60, 0, 60]
    assert times_at(found, 1, [2]) == ["240"]
    preparation = loaded(tmp_path / "own.parquet", timestamp=True, in_memory=in_memory).preparation()
    numbers, dates = replace(found, time_unit="unit of the file"), replace(found, time_unit="seconds")
    trained = Preparation.loaded(preparation)
    assert trained.checked(found).time_unit == DURATIONS
    assert trained.checked(numbers).time_unit == numbers.time_unit  # in seconds
    with pytest.raises(UserError, match=r"own\.parquet: got dates as times, expected durations, or numbers of seconds, as in"):
        trained.checked(dates)
    with pytest.raises(UserError, match=r"own\.parquet: got durations as times, expected numbers as in the training"):
        Preparation.loaded(preparation | {"in_durations": False}).checked(found)
    for other, kind in ((numbers, "numbers"), (dates, "dates")):
        # Earlier checkpoints have dates or numbers for durations.
        earlier = Preparation.loaded(preparation | {"dated": kind == "dates", "in_durations": None})
        assert (earlier.checked(found).time_unit, earlier.checked(other).time_unit) == (DURATIONS, other.time_unit)
        with pytest.raises(UserError, match=rf"as times, expected {kind} as in the training"):
            earlier.checked(dates if kind == "numbers" else numbers)


def test_texts_may_be_bytes(tmp_path):
    pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    table = frame(
        40, id=lambda k: NAMES[k // 2].encode(), time=lambda k: k % 2, a=float, label=lambda k: b"ab"[k // 2 % 2 :][:1]
    )
    table.to_parquet(tmp_path / "own.parquet")
    data = loaded(tmp_path / "own.parquet")
    assert data.spec.class_names == ("a", "b")
    assert {name for split in data.sizes for name in data.sequence_names(split)} == set(NAMES)
    table.loc[[4, 5], "id"] = b"s\xff"
    table.to_parquet(tmp_path / "own.parquet")
    with pytest.raises(UserError, match=r"own\.parquet, row 4, column id: got bytes that are not UTF-8 \(b's.xff'\)"):
        loaded(tmp_path / "own.parquet")
