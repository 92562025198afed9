"""Own files that were once misread: splits and widths of Parquet, labels of another table, tables without a header."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from seqmem import datasets
from seqmem.errors import UserError

LABELS = [f"s{k:02}" for k in range(20)]


def load(path, **arguments):
    return datasets.load({"name": "files", "path": str(path), **arguments})


def long(path, factor=1.0):
    """A long table of 20 series of 5 steps, without labels."""
    path.parent.mkdir(exist_ok=True)
    rows = [f"{name},{t},{factor * (k + t / 8)}" for k, name in enumerate(LABELS) for t in range(5)]
    path.write_text("id,time,a\n" + "\n".join(rows) + "\n")
    return path


def labels(path, columns="id,label", row=lambda k: f"{k % 2}"):
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{columns}\n" + "".join(f"{name},{row(k)}\n" for k, name in enumerate(LABELS)))
    return str(path)


def classes(data):
    batches = [data.batch(split, torch.arange(size)) for split, size in data.sizes.items()]
    firsts = torch.cat([batch.inputs[:, 0, 0] for batch in batches])
    return torch.cat([batch.targets for batch in batches])[firsts.argsort()].tolist()


def frame(rows, **columns):
    return pytest.importorskip("pandas").DataFrame({name: [value(k) for k in range(rows)] for name, value in columns.items()})


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_parquet_table_keeps_its_splits(tmp_path, in_memory):
    pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    splits = ["train"] * 9 + ["validation"] * 7 + ["test"] * 4
    table = frame(100, id=lambda k: LABELS[k // 5], time=lambda k: k % 5, a=float, label=lambda k: k // 5 % 2)
    table["split"] = [splits[k // 5] for k in range(100)]
    table.to_parquet(tmp_path / "own.parquet", row_group_size=17)
    data = load(tmp_path / "own.parquet", in_memory=in_memory, standardize=False)
    assert data.sizes == {"train": 9, "validation": 7, "test": 4}
    assert data.batch("test", torch.arange(4)).inputs[:, 0, 0].tolist() == [80, 85, 90, 95]
    table["split"] = "first"
    table.to_parquet(tmp_path / "own.parquet", row_group_size=17)
    assert load(tmp_path / "own.parquet", in_memory=in_memory).sizes == {"train": 14, "validation": 3, "test": 3}


def test_a_wide_parquet_table_is_not_read_by_row_groups(tmp_path):
    pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    path = tmp_path / "own.parquet"
    frame(20, id=LABELS.__getitem__, t0=float, t1=float, t2=float, label=lambda k: k % 2).to_parquet(path)
    assert load(path).spec.max_length == 3
    for more in ({}, {"layout": "wide"}):
        with pytest.raises(UserError, match=r"own.parquet is read by row groups, .* but each row is a series; give .*true"):
            load(path, in_memory=False, **more)


def test_values_are_identified_apart_from_labels_of_the_same_file_name(tmp_path):
    values, given = long(tmp_path / "values" / "train.csv"), labels(tmp_path / "labs" / "train.csv")
    identities = [load(values, labels_path=given).describe()]
    long(values, factor=2)
    identities.append(load(values, labels_path=given).describe())
    labels(Path(given), row=lambda k: f"{(k + 1) % 2}")
    identities.append(load(values, labels_path=given).describe())
    assert all(len(identity["files"]) == 2 for identity in identities)
    assert len({str(identity["files"]) for identity in identities}) == 3


@pytest.mark.parametrize("kind", ["csv", "npz", "npy"])
def test_columns_by_keys_are_those_of_the_table_of_labels(tmp_path, kind):
    path = long(tmp_path / "own.csv") if kind == "csv" else tmp_path / f"own.{kind}"
    values = (np.arange(20)[:, None, None] + np.arange(5)[:, None] / 8).astype(float)
    if kind == "npz":
        np.savez(path, values=values, ids=LABELS)
    elif kind == "npy":
        np.save(path, values)
    columns, ids = ("id,kind,who", LABELS) if kind != "npy" else ("kind,who", None)
    rows = [f"{k % 3 % 2},{k // 4}" if ids is None else f"{ids[k]},{k % 3 % 2},{k // 4}" for k in range(20)]
    (tmp_path / "kinds.csv").write_text("\n".join([columns, *rows]) + "\n")
    keys = {"labels_path": str(tmp_path / "kinds.csv"), "label_column": "kind", "group_column": "who"}
    data = load(path, **keys)
    assert classes(data) == [k % 3 % 2 for k in range(20)]
    assert "whole groups" in data.summary
    with pytest.raises(UserError, match=r"label_column: got 'knid', .* column of .*kinds.csv; did you mean 'kind'"):
        load(path, **{**keys, "label_column": "knid"})


def test_a_table_of_thousands_of_columns_takes_seconds(tmp_path):
    rows = np.random.default_rng(0).normal(size=(12, 4000)).round(2).astype(str)
    lines = [",".join([str(k % 2), *row]) for k, row in enumerate(rows)]
    (tmp_path / "wide.csv").write_text("\n".join([",".join(["label", *(f"t{k}" for k in range(4000))]), *lines]) + "\n")
    begin = time.process_time()
    assert load(tmp_path / "wide.csv").spec.max_length == 4000
    assert time.process_time() - begin < 10  # 1 s; 16 s with a pass over the names for each name


def test_tables_without_a_header_in_a_folder_are_series_of_steps(tmp_path):
    for k in range(16):
        folder = tmp_path / ("sit still", "walk")[k % 2]
        folder.mkdir(exist_ok=True)
        np.savetxt(folder / f"{k:02}.csv", [[float(k), k + 0.5]] * (5 + k), delimiter=",")
    data = load(tmp_path, standardize=False)
    assert (data.spec.input_size, data.spec.max_length, data.spec.class_names) == (2, 20, ("sit still", "walk"))
    assert classes(data) == [k % 2 for k in range(16)]
    batch = data.batch("train", torch.arange(data.sizes["train"]))
    assert batch.lengths.tolist() == [5 + int(first) for first in batch.inputs[:, 0, 0]]
    np.savetxt(tmp_path / "one.csv", np.arange(200) / 8)
    series = load(tmp_path / "one.csv", task="forecasting", standardize=False)
    assert series.batch("train", torch.tensor([0])).inputs[0, :, 0].tolist() == [k / 8 for k in range(100)]


@pytest.mark.parametrize("kind", ["csv", "npz"])
def test_further_label_columns_of_a_class_are_refused(tmp_path, kind):
    path = tmp_path / f"own.{kind}"
    if kind == "csv":
        rows = [f"{name},{t},{k + t},{k % 2},{k % 3}" for k, name in enumerate(LABELS) for t in range(3)]
        path.write_text("id,time,a,one,other\n" + "\n".join(rows))
    else:
        np.savez(path, values=np.zeros((20, 3, 1)), one=np.arange(20) % 2, other=np.arange(20) % 3)
    with pytest.raises(UserError, match=r"dataset.label_column: got \[one, other\] with dataset.task=classification, .*"):
        load(path, label_column=["one", "other"])
    if kind == "npz":
        with pytest.raises(UserError, match=r"dataset.label_column: got \[one, other\], expected one array of .*own.npz"):
            load(path, label_column=["one", "other"], task="regression")


def test_numbers_with_thousands_separators_are_not_left_out_as_texts(tmp_path):
    path = tmp_path / "own.csv"
    rows = [f'{name},{t},{t},"{k + 1},{t}00.5",{k % 2}' for k, name in enumerate(LABELS) for t in range(3)]
    path.write_text("id,time,a,b,label\n" + "\n".join(rows))
    with pytest.raises(UserError, match=r"own.csv, line 2, column b: got '1,000.5', expected a number.*no thousands separator"):
        load(path)
    path.write_text(path.read_text().replace('.5"', ' km"'))
    assert load(path).spec.input_size == 1


@pytest.mark.parametrize("standardize", [True, False])
def test_channels_of_zeros_are_prepared_as_in_the_training(tmp_path, standardize):
    path = tmp_path / "zeros.csv"
    path.write_text("id,time,a,label\n" + "\n".join(f"{name},{t},0,{k % 2}" for k, name in enumerate(LABELS) for t in range(3)))
    arguments = {"name": "files", "path": str(path), "standardize": standardize}
    saved = datasets.load(arguments).preparation()
    assert saved["mean"] == [0.0]
    again = datasets.load(arguments, preparation=saved)
    assert again.preparation() == saved
    with pytest.raises(UserError, match=rf"dataset.standardize: got {not standardize}, expected {standardize} as in"):
        datasets.load({**arguments, "standardize": not standardize}, preparation=saved)
