"""A folder with a file for each series."""

import numpy as np
import pytest
import torch

from seqmem.errors import UserError
from tests.datasets.files.tables import EXPECTED, WHOLE, classes, comma, everything, line, loaded


def test_folders(load, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    for k in range(10):
        rows = "".join(f"{t};{comma(k + t / 4)};{comma(-k - 0.5)}\n" for t in range(2 + k % 2))
        (folder / f"s{k}.csv").write_text(f"time;x;y\n{rows}")
    (folder / "labels.csv").write_text("file,label\n" + "".join(f"s{k}.csv,{'ab'[k % 2]}\n" for k in range(10)))
    data = load(None, "own", **WHOLE)
    assert everything(data) == EXPECTED
    assert set(data.describe()["files"]) == {"labels.csv", *(f"s{k}.csv" for k in range(10))}
    (folder / "labels.csv").write_text("file,label\ns0.csv,a\n")
    with pytest.raises(UserError, match=r"labels\.csv has no row for the series 's1' of .*own in column file"):
        load(None, "own")
    (folder / "labels.csv").unlink()
    with pytest.raises(UserError, match=r"own has no label .*dataset\.labels_path=labels\.csv"):
        load(None, "own")
    for k in range(10):
        (folder / "ab"[k % 2]).mkdir(exist_ok=True)
        (folder / f"s{k}.csv").rename(folder / "ab"[k % 2] / f"s{k}.csv")
    data = load(None, "own", **WHOLE)
    assert everything(data) == EXPECTED
    assert line(data, "label") == "names of the folders"


def test_tables_without_a_header_in_a_folder_are_series_of_steps(tmp_path):
    for k in range(16):
        folder = tmp_path / ("sit still", "walk")[k % 2]
        folder.mkdir(exist_ok=True)
        np.savetxt(folder / f"{k:02}.csv", [[float(k), k + 0.5]] * (5 + k), delimiter=",")
    data = loaded(tmp_path, standardize=False)
    assert (data.spec.input_size, data.spec.max_length, data.spec.class_names) == (2, 20, ("sit still", "walk"))
    assert classes(data) == [k % 2 for k in range(16)]
    batch = data.batch("train", torch.arange(data.sizes["train"]))
    assert batch.lengths.tolist() == [5 + int(first) for first in batch.inputs[:, 0, 0]]
    np.savetxt(tmp_path / "one.csv", np.arange(200) / 8)
    series = loaded(tmp_path / "one.csv", task="forecasting", standardize=False)
    assert series.batch("train", torch.tensor([0])).inputs[0, :, 0].tolist() == [k / 8 for k in range(100)]


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("channels", [(), (1,), (2,)])
def test_arrays_in_a_folder_are_series_of_steps(tmp_path, channels, in_memory):
    """Also with missing values in the last channel, or in all channels of a step."""
    for k in range(12):
        values = np.arange(k, k + 6.0)[(...,) + (None,) * len(channels)] + np.zeros(channels)
        values[2, ...] = np.nan
        values.reshape(6, -1)[4, -1] = np.nan
        (tmp_path / "ab"[k % 2]).mkdir(exist_ok=True)
        np.save(tmp_path / "ab"[k % 2] / f"{k}.npy", values)
    data = loaded(tmp_path, standardize=False, in_memory=in_memory)
    size = sum(channels) or 1
    assert (data.spec.input_size, data.spec.max_length) == (size, 6)
    for (inputs, target), k in zip(everything(data), range(12), strict=True):
        last = k + 3.0 if size == 1 else k + 4.0
        assert [step[0] for step in inputs] == [k, k + 1, k + 1, k + 3, last, k + 5]
        assert target == k % 2


@pytest.mark.parametrize("in_memory", [True, False])
def test_an_array_of_one_row_in_a_folder_is_a_series_of_its_numbers(tmp_path, in_memory):
    for k in range(12):
        (tmp_path / "ab"[k % 2]).mkdir(exist_ok=True)
        np.save(tmp_path / "ab"[k % 2] / f"{k}.npy", np.arange(k, k + 6.0)[None])
    data = loaded(tmp_path, standardize=False, in_memory=in_memory)
    assert [inputs for inputs, _ in everything(data)] == [[[float(k + t)] for t in range(6)] for k in range(12)]


def test_dots_in_the_names_of_files_belong_to_the_names(tmp_path):
    for k in range(20):
        (tmp_path / f"s{k // 10}.t{k % 10}.csv").write_text("x\n" + f"{k}\n" * 3)
    rows = [f"s{k // 10}.t{k % 10}{'.csv' * (k % 2)},{'ab'[k % 3 % 2]}" for k in range(20)]
    (tmp_path / "labels.csv").write_text("file,label\n" + "\n".join(rows))
    data = loaded(tmp_path, standardize=False)
    assert classes(data) == [k % 3 % 2 for k in range(20)]
    assert "s0.t0" in {name for split in data.sizes for name in data.sequence_names(split)}
    np.save(tmp_path / "s0.t0.npy", np.zeros(3))
    with pytest.raises(UserError, match=r"got s0\.t0\.csv and s0\.t0\.npy, expected files whose names differ without their"):
        loaded(tmp_path)


def test_files_in_folders_may_have_a_table_of_labels(tmp_path):
    for k in range(20):
        (tmp_path / f"u{k % 4}").mkdir(exist_ok=True)
        (tmp_path / f"u{k % 4}" / f"r{k}.csv").write_text("x\n" + f"{k}\n" * 3)
    for name in (lambda k: f"u{k % 4}/r{k}.csv", lambda k: f"r{k}"):
        (tmp_path / "labels.csv").write_text("file,label\n" + "\n".join(f"{name(k)},{'ab'[k // 10]}" for k in range(20)))
        assert classes(loaded(tmp_path, standardize=False)) == [0] * 10 + [1] * 10
    (tmp_path / "labels.csv").write_text("file,label\n" + "\n".join(f"v{k % 4}/r{k},{'ab'[k // 10]}" for k in range(20)))
    with pytest.raises(UserError, match=r"has no row for the series 'u0/r0'"):
        loaded(tmp_path)
    (tmp_path / "labels.csv").write_text("file,label\n" + "\n".join(f"r{k},{'ab'[k // 10]}" for k in range(20)))
    (tmp_path / "u0" / "r1.csv").write_text("x\n1\n1\n1\n")  # u1 has one, too
    with pytest.raises(UserError, match=r"has no row for the series 'u0/r1'"):
        loaded(tmp_path)


def test_columns_of_labels_are_no_channels_where_labels_are_elsewhere(tmp_path):
    """The class would be an input."""
    for k in range(20):
        (tmp_path / "ab"[k % 2]).mkdir(exist_ok=True)
        (tmp_path / "ab"[k % 2] / f"{k}.csv").write_text("x,label\n" + f"{k},{k % 2}\n" * 3)
    data = loaded(tmp_path)
    assert (line(data, "channels"), line(data, "ignored columns")) == ("1: x", "label")
    assert line(loaded(tmp_path, channel_columns=["x", "label"]), "channels") == "2: x, label"
