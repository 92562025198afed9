"""Labels of series: in their table or array, or in a table of their own."""

from pathlib import Path

import numpy as np
import pytest

from seqmem.errors import UserError
from tests.datasets.files.tables import NAMES, WHOLE, classes, line, loaded, long


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


def steps_of(k):
    return np.array([k, k + 0.5, k + 1.0])


def numbered_array(path):
    np.save(path / "own.npy", np.stack([steps_of(k) for k in range(20)]))
    return path / "own.npy", [str(k) for k in range(20)]


def numbered_folder(path):
    """Files whose order by name is not that of their numbers."""
    (path / "own").mkdir()
    for k in range(20):
        np.savetxt(path / "own" / f"r{k}.csv", steps_of(k), header="x", comments="")
    return path / "own", [f"r{k}.csv" for k in range(20)]


def numbered_table(path):
    """Names that are not those of numbers."""
    rows = [f"{k:03},{t},{value}" for k in range(20) for t, value in enumerate(steps_of(k))]
    (path / "own.csv").write_text("id,time,a\n" + "\n".join(rows))
    return path / "own.csv", [f"{k:03}" for k in range(20)]


@pytest.mark.parametrize("make", [numbered_array, numbered_folder, numbered_table])
@pytest.mark.parametrize("column", ["file", "which one", "unknown key"])
def test_rows_of_labels_belong_to_the_series_they_name_in_any_order_of_rows(tmp_path, make, column):
    path, names = make(tmp_path)
    if column == "which one" and make is numbered_array:
        pytest.skip("numbers may be anything")
    rows = [f"{name},{'ab'[k // 10]},{30 + k}" for k, name in enumerate(names)]
    (tmp_path / "kinds.csv").write_text(f"{column},label,age\n" + "\n".join(np.random.default_rng(0).permutation(rows)))
    keys = {"id_column": column} if column == "unknown key" else {}
    data = loaded(path, labels_path=str(tmp_path / "kinds.csv"), standardize=False, **keys)
    assert classes(data) == [0] * 10 + [1] * 10
    assert f"kinds.csv, by {column}" in line(data, "labels of")
    assert line(data, "ignored columns of the labels") == "age"


@pytest.mark.parametrize("make", [numbered_array, numbered_folder])
def test_rows_of_labels_that_may_be_in_any_order_are_refused(tmp_path, make):
    path, _ = make(tmp_path)
    given = tmp_path / "kinds.csv"
    given.write_text("rank,label\n" + "\n".join(f"{19 - k},{'ab'[k // 10]}" for k in range(20)))
    expected = r"kinds.csv: got 20 rows without a known column of ids \(its columns: rank, label\).*dataset.id_column=NAME"
    with pytest.raises(UserError, match=expected):
        loaded(path, labels_path=str(given))
    if path.is_dir():
        given.write_text("label\n" + "\n".join("ab"[k // 10] for k in range(20)))
        with pytest.raises(UserError, match=r"without a known column of ids \(its columns: label\).*dataset.id_column=NAME$"):
            loaded(path, labels_path=str(given))
    else:
        data = loaded(path, labels_path=str(given), id_column="none", standardize=False)
        assert classes(data) == [0] * 10 + [1] * 10


def test_marks_of_a_missing_label_are_the_same_in_arrays_and_tables(tmp_path):
    np.savez(tmp_path / "own.npz", values=np.zeros((20, 3, 1)), labels=np.array(["a", "b"] * 9 + ["nan", "?"]))
    with pytest.raises(UserError, match=r"got no label of series '18' \(2 of 20 have none\)"):
        loaded(tmp_path / "own.npz")
