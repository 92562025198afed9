"""Splits of one's own series: given by a column or by files, drawn, and of whole groups."""

import pytest
import torch

from seqmem.data import SPLITS
from seqmem.errors import DataWarning, UserError
from tests.datasets.files.tables import line


def test_splits_by_a_column_by_files_and_by_groups(load, tmp_path):
    text = "id,x,label,split\n" + "".join(
        f"{k},{k},{'ab'[k % 2]},{('Train', 'train', 'val', 'TEST', 'test')[k % 5]}\n{k},0,,\n" for k in range(20)
    )
    data = load(text, standardize=False)
    assert data.sizes == {"train": 8, "validation": 4, "test": 8}
    assert data.batch("validation", torch.arange(4)).inputs[:, 0, 0].tolist() == [2, 7, 12, 17]
    assert line(data, "split by") == "what the files say"
    given = load(text.replace(",val\n", ",\n"), standardize=False)
    assert line(given, "split by") == "what the files say, and a draw stratified by class for what they leave out"
    with pytest.raises(UserError, match=r"line 6, column part2: got 'rest', expected train, validation or test"):
        load(text.replace("split", "part2").replace("val\n", "rest\n"), split_column="part2")
    for name, ks in {"own": range(10), "val": range(10, 14), "test": range(14, 20)}.items():
        rows = "".join(f"{k},{k},{'ab'[k % 2]}\n{k},0,\n" for k in ks)
        (tmp_path / f"{name}.csv").write_text(f"id,x,label\n{rows}")
    data = load(None, validation_path=str(tmp_path / "val.csv"), test_path=str(tmp_path / "test.csv"), standardize=False)
    assert data.sizes == {"train": 10, "validation": 4, "test": 6}
    assert set(data.describe()["files"]) == {"own.csv", "validation: val.csv", "test: test.csv"}
    groups = "id,subject,x,label\n" + "".join(f"{k},p{k // 4},{k // 4},{'ab'[k % 2]}\n{k},,{k // 4},\n" for k in range(40))
    for label in ("label", "other"):
        task = {"task": "classification"} if label == "label" else {"task": "reconstruction"}
        data = load(groups.replace("label", label), standardize=False, **task)
        subjects = [set(data.batch(split, torch.arange(data.sizes[split])).inputs[:, 0, 0].tolist()) for split in SPLITS]
        assert len(set().union(*subjects)) == 10
        assert sum(map(len, subjects)) == 10
    assert "whole groups" in line(data, "split by")


def test_a_group_in_two_given_splits_is_refused(load):
    text = "id,subject,x,label,split\n" + "".join(
        f"{k},p{k % 3},{k},{'ab'[k // 2 % 2]},{('train', 'test')[k % 2]}\n{k},,0,,\n" for k in range(9)
    )
    with pytest.raises(UserError, match=r"dataset\.group_column: got series of group 'p\d' in \w+ and in \w+.*=none"):
        load(text)
    assert load(text, group_column="none").sizes == {"train": 4, "validation": 1, "test": 4}
    unsplit = load(text, group_column="none", split_column="none")
    assert unsplit.sizes == {"train": 7, "validation": 1, "test": 1}
    assert line(unsplit, "channels") == "1: x"


def test_drawn_splits_are_stratified_and_depend_on_the_seed(load):
    text = "id,x,label\n" + "".join(f"{k},{k},{'aab'[k % 3]}\n{k},0,\n" for k in range(120))
    data = load(text, standardize=False, validation_fraction=0.25, test_fraction=0.25)
    assert data.sizes == {"train": 60, "validation": 30, "test": 30}
    for split in SPLITS:
        counts = data.batch(split, torch.arange(data.sizes[split])).targets.bincount()
        assert counts.tolist() == [data.sizes[split] * 2 // 3, data.sizes[split] // 3]
    other = load(text, standardize=False, validation_fraction=0.25, test_fraction=0.25, split_seed=1)
    assert other.describe()["sha256"] != data.describe()["sha256"]


def test_a_class_without_training_series_is_a_warning(load):
    text = "id,x,label,split\n" + "".join(f"{k},1,{'ab'[k % 2]},{('train', 'test')[k % 2]}\n{k},2,,\n" for k in range(10))
    with pytest.warns(DataWarning, match="the training split has no series of b"):
        load(text)
