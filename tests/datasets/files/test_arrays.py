"""Series of .npy, .npz and .ts files."""

from math import nan

import numpy as np
import pytest

from seqmem.errors import UserError
from tests.datasets.files.tables import WHOLE, everything, line
from tests.tiny_files import write_ts


def test_arrays(load, tmp_path):
    values = np.arange(60.0).reshape(10, 3, 2)
    labels = np.array(["b", "a"] * 5)
    expected = sorted((values[k].tolist(), 1 - k % 2) for k in range(10))
    np.savez(tmp_path / "own.npz", values=values, labels=labels)
    assert everything(load(None, "own.npz", **WHOLE)) == expected
    np.savez_compressed(tmp_path / "own.npz", X=values.astype(np.float32), y=labels, channels=["one", "two"])
    data = load(None, "own.npz", **WHOLE)
    assert everything(data) == expected
    assert line(data, "channels") == "2: one, two"
    np.savez(tmp_path / "own.npz", values=values.reshape(30, 2), lengths=np.full(10, 3), labels=labels)
    assert everything(load(None, "own.npz", **WHOLE)) == expected
    np.save(tmp_path / "own.npy", values)
    (tmp_path / "labels.csv").write_text("label\n" + "\n".join(labels))
    for in_memory in (True, False, None):
        keys = {"labels_path": str(tmp_path / "labels.csv"), "in_memory": in_memory}
        assert everything(load(None, "own.npy", **keys, **WHOLE)) == expected


def test_arrays_of_unequal_lengths(load, tmp_path):
    series = np.empty(10, object)
    series[:] = [np.full((2 + k % 3, 2), k, np.float32) for k in range(10)]
    labels = np.arange(10) % 2
    expected = [(each.tolist(), k % 2) for k, each in enumerate(series)]
    np.savez(tmp_path / "own.npz", values=series, labels=labels)
    assert everything(load(None, "own.npz", **WHOLE)) == expected
    filled = np.full((10, 4, 2), nan)
    for k, each in enumerate(series):
        filled[k, : len(each)] = each
    np.savez(tmp_path / "own.npz", values=filled, labels=labels)
    assert everything(load(None, "own.npz", **WHOLE)) == expected
    np.savez(tmp_path / "own.npz", values=np.nan_to_num(filled), labels=labels, lengths=[len(each) for each in series])
    assert everything(load(None, "own.npz", **WHOLE)) == expected
    np.save(tmp_path / "own.npy", filled)
    (tmp_path / "labels.tsv").write_text("id\tlabel\n" + "".join(f"{k}\t{k % 2}\n" for k in range(10)))
    for in_memory in (True, False):
        data = load(None, "own.npy", labels_path=str(tmp_path / "labels.tsv"), in_memory=in_memory, **WHOLE)
        assert everything(data) == expected
    np.savez(tmp_path / "own.npz", **{f"s{k}": each for k, each in enumerate(series)})
    (tmp_path / "labels.tsv").write_text("series\tlabel\n" + "".join(f"s{k}.npy\t{k % 2}\n" for k in reversed(range(10))))
    assert everything(load(None, "own.npz", labels_path=str(tmp_path / "labels.tsv"), **WHOLE)) == expected


def test_ts_files(load, tmp_path):
    cases = [([[k + t / 4 for t in range(2 + k % 2)], [-k - 0.5] * (2 + k % 2)], "ab"[k % 2]) for k in range(10)]
    write_ts(tmp_path, "Made", "TRAIN", cases)
    data = load(None, "Made/Made_TRAIN.ts", test_path=str(tmp_path / "Made" / "Made_TRAIN.ts"), **WHOLE)
    assert data.sizes == {"train": 8, "validation": 2, "test": 10}
    values = "@problemName own\n@timeStamps false\n@targetLabel true\n@data\n" + "".join(
        f"1,2,{k}:{k / 2}\n" for k in range(10)
    )
    data = load(values, "own.ts", task="regression", **WHOLE)
    assert everything(data) == [([[1.0], [2.0], [float(k)]], [k / 2]) for k in range(10)]


def test_infinite_values_are_refused_by_series_step_and_channel(load, tmp_path):
    values = np.zeros((5, 3, 2))
    values[3, 2, 1] = -np.inf
    (tmp_path / "labels.csv").write_text("label\n" + "a\nb\n" * 2 + "a\n")
    np.save(tmp_path / "own.npy", values)
    for in_memory in (True, False):
        with pytest.raises(UserError, match=r"own.npy, series '3', step 2, channel x1: got an infinite value"):
            load(None, "own.npy", labels_path=str(tmp_path / "labels.csv"), in_memory=in_memory)
    for arrays in (
        {"values": values, "ids": list("pqrst")},
        {"values": values.reshape(15, 2), "lengths": [3] * 5, "ids": list("pqrst")},
        {name: values[k] for k, name in enumerate("pqrst")},
    ):
        np.savez(tmp_path / "own.npz", **arrays)
        with pytest.raises(UserError, match=r"own.npz, series 's', step 2, channel x1: got an infinite value"):
            load(None, "own.npz")
