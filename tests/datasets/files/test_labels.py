"""Labels of series: in their table or array, or in a table of their own."""

from pathlib import Path

import numpy as np
import pytest

from seqmem.errors import UserError
from tests.datasets.files.tables import NAMES, WHOLE, classes, loaded, long


def unlabelled(path, factor=1.0):
    """A long table of 20 series of 5 steps, without labels."""
    path.parent.mkdir(exist_ok=True)
    rows = [f"{name},{t},{factor * (k + t / 8)}" for k, name in enumerate(NAMES) for t in range(5)]
    path.write_text("id,time,a\n" + "\n".join(rows) + "\n")
    return path


def labels(path, columns="id,label", row=lambda k: f"{k % 2}"):
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{columns}\n" + "".join(f"{name},{row(k)}\n" for k, name in enumerate(NAMES)))
    return str(path)


def test_labels_keep_blanks_and_marks(load):
    for labels, names in {
        ("walking fast", " run"): ("run", "walking fast"),
        ("NA", "-"): ("-", "NA"),
        ("None", "+"): ("+", "None"),
        ("10", "9"): ("9", "10"),
        ("1.0", "2"): ("1.0", "2"),
        ("007", "7a"): ("007", "7a"),
        ("True", "False"): ("False", "True"),
        ('"a, b"', "c"): ("a, b", "c"),
    }.items():
        assert load(long(label=lambda k: labels[k % 2]), **WHOLE).spec.class_names == names  # noqa: B023


def test_values_are_identified_apart_from_labels_of_the_same_file_name(tmp_path):
    values, given = unlabelled(tmp_path / "values" / "train.csv"), labels(tmp_path / "labs" / "train.csv")
    identities = [loaded(values, labels_path=given).describe()]
    unlabelled(values, factor=2)
    identities.append(loaded(values, labels_path=given).describe())
    labels(Path(given), row=lambda k: f"{(k + 1) % 2}")
    identities.append(loaded(values, labels_path=given).describe())
    assert all(len(identity["files"]) == 2 for identity in identities)
    assert len({str(identity["files"]) for identity in identities}) == 3


@pytest.mark.parametrize("kind", ["csv", "npz", "npy"])
def test_columns_by_keys_are_those_of_the_table_of_labels(tmp_path, kind):
    path = unlabelled(tmp_path / "own.csv") if kind == "csv" else tmp_path / f"own.{kind}"
    values = (np.arange(20)[:, None, None] + np.arange(5)[:, None] / 8).astype(float)
    if kind == "npz":
        np.savez(path, values=values, ids=NAMES)
    elif kind == "npy":
        np.save(path, values)
    columns, ids = ("id,kind,who", NAMES) if kind != "npy" else ("kind,who", None)
    rows = [f"{k % 3 % 2},{k // 4}" if ids is None else f"{ids[k]},{k % 3 % 2},{k // 4}" for k in range(20)]
    (tmp_path / "kinds.csv").write_text("\n".join([columns, *rows]) + "\n")
    keys = {"labels_path": str(tmp_path / "kinds.csv"), "label_column": "kind", "group_column": "who"}
    data = loaded(path, **keys)
    assert classes(data) == [k % 3 % 2 for k in range(20)]
    assert "whole groups" in data.summary
    with pytest.raises(UserError, match=r"label_column: got 'knid', .* column of .*kinds.csv; did you mean 'kind'"):
        loaded(path, **{**keys, "label_column": "knid"})


@pytest.mark.parametrize("kind", ["csv", "npz"])
def test_further_label_columns_of_a_class_are_refused(tmp_path, kind):
    path = tmp_path / f"own.{kind}"
    if kind == "csv":
        rows = [f"{name},{t},{k + t},{k % 2},{k % 3}" for k, name in enumerate(NAMES) for t in range(3)]
        path.write_text("id,time,a,one,other\n" + "\n".join(rows))
    else:
        np.savez(path, values=np.zeros((20, 3, 1)), one=np.arange(20) % 2, other=np.arange(20) % 3)
    with pytest.raises(UserError, match=r"dataset.label_column: got \[one, other\] with dataset.task=classification, .*"):
        loaded(path, label_column=["one", "other"])
    if kind == "npz":
        with pytest.raises(UserError, match=r"dataset.label_column: got \[one, other\], expected one array of .*own.npz"):
            loaded(path, label_column=["one", "other"], task="regression")
