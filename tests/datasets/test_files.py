"""One's own files: tables as people have them, arrays, folders, splits, missing values, times and tasks."""

import gzip
import re
from math import nan

import numpy as np
import pytest
import torch

from seqmem import datasets
from seqmem.cli import commandline
from seqmem.data import SPLITS
from seqmem.errors import DataWarning, UserError
from tests.program import ROOT
from tests.tiny_files import write_ts

WHOLE = {"validation_fraction": 0.2, "test_fraction": 0.2, "standardize": False}


@pytest.fixture
def load(tmp_path):
    """Write a file, or take one by name, and load it."""

    def load(content, name="own.csv", **arguments):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            path.write_bytes(content.encode())
        return datasets.load({"name": "files", "path": str(path), **arguments})

    return load


def line(data, name):
    """The text of a line of the table of what was understood."""
    [found] = [line.strip() for line in data.summary.splitlines()[1:] if line.strip().startswith(f"{name}  ")]
    return found.removeprefix(name).strip()


def everything(data):
    """Inputs of all series without padding, with their targets, in the order of the values of their first steps."""
    found = []
    for split in SPLITS:
        batch = data.batch(split, torch.arange(data.sizes[split]))
        lengths = [batch.inputs.shape[1]] * len(batch) if batch.lengths is None else batch.lengths.tolist()
        for inputs, target, length in zip(batch.inputs, batch.targets, lengths, strict=True):
            assert (inputs[length:] == 0).all()
            found.append((inputs[:length].tolist(), target.tolist()))
    return sorted(found)


def long(rows=10, separator=",", header="id,time,x,y,label", label=lambda k: "ab"[k % 2], number=str, ending="\n"):
    """A long table of series of two and three steps."""
    lines = [header.replace(",", separator)]
    for k in range(rows):
        for t in range(2 + k % 2):
            lines.append(separator.join([f"s{k}", str(t), number(k + t / 4), number(-k - 0.5), label(k)]))
    return ending.join(lines) + ending


EXPECTED = [([[k + t / 4, -k - 0.5] for t in range(2 + k % 2)], k % 2) for k in range(10)]


def comma(value):
    return str(value).replace(".", ",")


def shuffled(text):
    head, *lines = text.splitlines()
    return "\n".join([head, *np.random.default_rng(0).permutation(lines)]) + "\n"


TABLES = {
    "plain": long(),
    "CRLF": long(ending="\r\n"),
    "CR": long(ending="\r"),
    "byte order mark": "\ufeff" + long(),
    "semicolons": long(separator=";"),
    "decimal commas": long(separator=";", number=comma),
    "decimal commas after tabs": long(separator="\t", number=comma),
    "quoted decimal commas": long(number=lambda value: f'"{comma(value)}"'),
    "tabs": long(separator="\t"),
    "bars": long(separator="|"),
    "blanks": long(separator="  "),
    "blanks after commas": long(separator=", "),
    "blanks around cells": long(separator=" , "),
    "no end of the last line": long().rstrip(),
    "blank lines": long().replace("\n", "\n\n"),
    "lines of separators": long().replace("\n", "\n,,,,\n"),
    "trailing separators": long(ending=",\n"),
    "trailing separators but in the header": long(ending=",\n").replace(",\n", "\n", 1),
    "trailing semicolons": long(separator=";", ending=";\r\n"),
    "quoted fields": '"id","time","x","y","label"\n'
    + "".join(",".join(f'"{cell}"' for cell in row.split(",")) + "\n" for row in long().splitlines()[1:]),
    "unsorted": shuffled(long()),
    "capitals": long(header="ID,Time,X,Y,Label"),
    "other names": long(header="series_id,timestamp,x,y,class"),
    "numbers of rows as pandas writes them": "\n".join(
        f"{'' if k == 0 else k - 1},{row}" for k, row in enumerate(long().splitlines())
    ),
    "dates": long()
    .replace(",0,", ",2024-01-31T23:59:59.5Z,")
    .replace(",1,", ",2024-02-01,")
    .replace(",2,", ",2024-03-01 10:00,"),
    "labels on one row of a series": "\n".join(
        row if row.split(",")[1] in ("time", "0") else row.rsplit(",", 1)[0] + "," for row in long().splitlines()
    ),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables_as_people_have_them(case, load):
    data = load(TABLES[case], **WHOLE)
    assert everything(data) == EXPECTED
    assert (data.spec.input_size, data.spec.output_size, data.spec.class_names) == (2, 2, ("a", "b"))
    assert line(data, "series") == "10"
    assert line(data, "steps") == "2 to 3, median 2.5"


def test_compressed_and_encoded_tables(load):
    assert everything(load(gzip.compress(long().encode()), "own.csv.gz", **WHOLE)) == EXPECTED
    assert everything(load(long().encode("utf-16"), **WHOLE)) == EXPECTED
    german = long(label=lambda k: ["gehen", "kr\u00e4ftig laufen"][k % 2]).encode("cp1252")
    with pytest.raises(UserError, match=r"own\.csv: got a byte at \d+ that is not UTF-8.*dataset\.encoding=cp1252"):
        load(german)
    assert load(german, encoding="cp1252", **WHOLE).spec.class_names == ("gehen", "kr\u00e4ftig laufen")
    with pytest.raises(UserError, match=r"dataset\.encoding: got 'latin-99'"):
        load(german, encoding="latin-99")


@pytest.mark.parametrize(
    "mark", ["", "NA", "N/A", "n/a", "?", "NaN", "nan", "-", "null", "NULL", "None", " ", " NA ", "#N/A", "."]
)
def test_marks_of_missing_values(mark, load):
    text = long().replace("s3,1,3.25,", f"s3,1,{mark},").replace("s4,0,4.0,", f"s4,0,{mark},")
    expected = [(inputs, target) for inputs, target in EXPECTED]
    data = load(text, **WHOLE)
    assert line(data, "missing values").startswith("2 of 50 (4.0%), filled with the previous value")
    found = everything(data)
    assert ([[3.0, -3.5], [3.0, -3.5], [3.5, -3.5]], 1) in found
    assert sum(each in expected for each in found) == 8


def test_missing_values_become_the_last_the_mean_or_a_mask(load):
    text = "id,x,label\n" + "".join(f"{k},{value},{'ab'[k % 2]}\n" for k in range(10) for value in ("", 2, "", 4))
    last = load(text, missing="last", **WHOLE)
    assert everything(last)[0][0] == [[3.0], [2.0], [2.0], [4.0]]
    assert everything(load(text, missing="mean", **WHOLE))[0][0] == [[3.0], [2.0], [3.0], [4.0]]
    mask = load(text, missing="mask", **WHOLE)
    assert mask.spec.input_size == 2
    assert everything(mask)[0][0] == [[3.0, 0.0], [2.0, 1.0], [2.0, 0.0], [4.0, 1.0]]
    with pytest.raises(UserError, match="channel x: got a missing value at step 0 of a series of 4 steps"):
        load(text, missing="refuse", **WHOLE)
    standardised = load(text, missing="mean", validation_fraction=0.2, test_fraction=0.2)
    assert everything(standardised)[0][0] == [[0.0], [-1.0], [0.0], [1.0]]


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


WIDE = "".join(f"{k},{k + 0.5},{k + 1}{',2' if k % 2 else ''}\n" for k in range(10))
EXPECTED_WIDE = sorted(([[k], [k + 0.5], [k + 1.0], *([[2.0]] if k % 2 else [])], k % 2) for k in range(10))
WIDE_TABLES = {
    "header": "label,t0,t1,t2,t3\n" + "".join(f"{'ab'[k % 2]},{row}\n" for k, row in enumerate(WIDE.splitlines())),
    "label last": "t0,t1,t2,t3,label\n"
    + "".join(f"{row}{'' if k % 2 else ','},{'ab'[k % 2]}\n" for k, row in enumerate(WIDE.splitlines())),
    "ids": "id,label,t0,t1,t2,t3\n" + "".join(f"{k + 5},{'ab'[k % 2]},{row}\n" for k, row in enumerate(WIDE.splitlines())),
    "numbered steps": "label,0,1,2,3\n" + "".join(f"{'ab'[k % 2]},{row}\n" for k, row in enumerate(WIDE.splitlines())),
    "NaN at the end": "label,t0,t1,t2,t3\n"
    + "".join(f"{'ab'[k % 2]},{row}{'' if k % 2 else ',NaN'}\n" for k, row in enumerate(WIDE.splitlines())),
}


@pytest.mark.parametrize("case", WIDE_TABLES)
def test_wide_tables(case, load):
    data = load(WIDE_TABLES[case], **WHOLE)
    assert everything(data) == EXPECTED_WIDE
    assert line(data, "layout") == "wide, a row is a series"


def test_tables_without_a_header(load, tmp_path):
    text = "".join(f"{1 + k % 2}\t{row}\n".replace(",", "\t") for k, row in enumerate(WIDE.splitlines()))
    data = load(text, "own.tsv", label_column="0", **WHOLE)
    assert everything(data) == EXPECTED_WIDE
    assert "no header" in line(data, "format")
    with pytest.raises(UserError, match=r"has no label that is found by its name.*\n?"):
        load(text, "own.tsv")
    with pytest.raises(UserError, match=r"label_column: got '9', expected a column of .* \(the file has no header, so"):
        load(text, "own.tsv", label_column="9")
    text = "".join(f"s{k},{t},{k},{'ab'[k % 2]}\n" for k in range(10) for t in range(2))
    keys = ["dataset=files", f"dataset.path={tmp_path / 'steps.csv'}", "dataset.id_column=0", "dataset.time_column=1"]
    (tmp_path / "steps.csv").write_text(text)
    config = commandline.compose([*keys, "dataset.channel_columns=[2]", "dataset.label_column=3", "dataset.standardize=false"])
    assert everything(datasets.load(config["dataset"])) == [([[float(k)]] * 2, k % 2) for k in range(10)]
    words = "".join(f"{row}{',' * (1 - k % 2)},{'ab'[k % 2]}\n" for k, row in enumerate(WIDE.splitlines()))
    assert everything(load(words, label_column="4", **WHOLE)) == EXPECTED_WIDE


REFUSED = {
    "empty": ("", r"own\.csv is empty"),
    "blank": ("\n \n\n", r"own\.csv is empty"),
    "header alone": ("id,x,label\n", r"own\.csv has a header and no further line"),
    "zero bytes": ("id,x\0,label\n1,2,a\n", r"own\.csv: got a zero byte"),
    "one class": (long(label=lambda k: "a"), r"label_column: got a single class 'a' in .*own\.csv, expected at least 2"),
    "a label is missing": (long(label=lambda k: "" if k == 3 else "ab"[k % 2]), r"got no label of series 's3' \(1 of 10"),
    "two labels": (long().replace("s1,1,1.25,-1.5,b", "s1,1,1.25,-1.5,a"), r"line 5, column label: got 'a' in series 's1'"),
    "no label": (
        long(header="id,time,x,y,remark"),
        r"has no label that is found by its name \(channels: x, y; other columns: remark\)",
    ),
    "not a number": (long().replace("2.25", "2.2.5"), r"own\.csv, line 8, column x: got '2\.2\.5', expected a number"),
    "thousands": (long(separator=";").replace("2.25", "1,234"), r"line 8, column x: got '1,234'.*thousands separator"),
    "infinite": (long().replace("2.25", "inf"), r"own\.csv, line 8, column x: got an infinite value"),
    "a time twice": (
        long().replace("s2,1,", "s2,0,"),
        r"line 8, column time: got the time '0' of series 's2' a second time, after line 7",
    ),
    "no time": (long().replace("s2,1,", "s2,,"), r"line 8, column time: got no time"),
    "not a time": (long().replace("s2,1,", "s2,31.01.2024,"), r"line 8, column time: got '31\.01\.2024'.*2024-01-31"),
    "no id": (long().replace("s2,1,", ",1,"), r"line 8, column id: got no series"),
    "a short row": (long().replace("s2,1,2.25,-2.5,a", "s2,1,2.25"), r"line 8: got 3 cells, expected 5 as in the first line"),
    "a long row": (
        long().replace("s2,1,2.25,-2.5,a", "s2,1,2.25,-2.5,a,7"),
        r"line 8: got '7(\.0)?' in cell 6, which has no name",
    ),
    "names twice": (long(header="id,time,x,x,label"), r"got the column 'x' twice"),
    "no channel": ("id,label\na,b\nc,d\n", r"has no column of numbers besides id, label"),
    "a series without a value": ("label,t0,t1\na,1,2\nb,,\n", r"line 3: got a series without a value"),
    "numbers as classes": (long(label=lambda k: str(k * 1.5)), r"got 10 different numbers for 10 series.*task=regression"),
    "one series": ("id,x,label\n1,2,a\n1,3,a\n", r"single class"),
    "an open quote": (long().replace("s2,1", '"s2,1'), r"own\.csv, line \d+: "),
    "beyond float32": (long().replace("2.25", "1e60"), r"channel x: got 1e\+60, which is beyond the range of float32"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_tables(case, load):
    text, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as caught:
        load(text, **WHOLE)
    assert "\n" not in str(caught.value)


def test_lines_are_counted_with_blank_ones_and_line_breaks_in_quotes(load):
    text = long().replace("\n", "\n\n", 3).replace("2.25", "x")
    with pytest.raises(UserError, match=r"line 11, column x: got 'x'"):
        load(text)
    noted = "id,remark,x,label\n" + "".join(f'{k},"first\nsecond",{k},{"ab"[k % 2]}\n{k},,oops,\n' for k in range(3))
    with pytest.raises(UserError, match=r"line 4, column x: got 'oops'"):
        load(noted, channel_columns=["x"])


def test_columns_by_keys(load):
    text = long(header="patient,when,x,y,outcome2")
    with pytest.raises(UserError, match=r"none of which has a name known .* dataset\.id_column=patient "):
        load(text)
    keys = {"label_column": "outcome2", "time_column": "when", "id_column": "patient"}
    assert everything(load(text, **keys, **WHOLE)) == EXPECTED
    one = load(text, **keys, channel_columns=["y"], **WHOLE)
    assert one.spec.input_size == 1
    assert line(one, "channels") == "1: y"
    turned = load(text, **keys, channel_columns=["y", "x"], **WHOLE)
    assert everything(turned)[-1][0][0] == [-0.5, 0.0]
    with pytest.raises(
        UserError, match=r"dataset\.time_column: got 'wen', expected a column of .*own\.csv; did you mean 'when'"
    ):
        load(text, **keys | {"time_column": "wen"})
    with pytest.raises(UserError, match=r"dataset\.channel_columns: got 'z', expected a column"):
        load(text, **keys, channel_columns=["z"])


def test_rows_of_unknown_columns_are_not_taken_for_series(load):
    """They would be series of some steps of one channel, with the accuracy of a guess."""
    text = long(40, header="Aufnahme,Zeit,Kraft links,Kraft rechts,Klasse")
    for given in ({}, {"label_column": "Klasse"}):
        with pytest.raises(
            UserError, match=r"own\.csv: got columns Aufnahme, .* dataset\.id_column=Aufnahme .* dataset\.layout=wide"
        ):
            load(text, **given)
    keys = {"label_column": "Klasse", "id_column": "Aufnahme", "time_column": "Zeit"}
    assert line(load(text, **keys), "channels") == "2: Kraft links, Kraft rechts"
    with pytest.raises(UserError, match=r"dataset\.id_column="):
        load(text, label_column="Klasse", layout="long")
    months = "mai,juni,label\n" + "".join(f"{k},{k + 1},{'ab'[k % 2]}\n" for k in range(20))
    with pytest.raises(UserError, match=r"dataset\.id_column=NAME"):
        load(months)
    assert line(load(months, layout="wide"), "series") == "20"
    assert (
        line(load("subject,t0,t1,label\n" + "".join(f"p{k // 2},{k},1,{'ab'[k % 2]}\n" for k in range(20))), "series") == "20"
    )


def test_columns_of_texts_are_ignored_and_named(load):
    text = long(header="id,time,x,remark,label", number=lambda value: str(value) if value >= 0 else "well")
    data = load(text, **WHOLE)
    assert line(data, "ignored columns") == "remark"
    assert line(data, "channels") == "1: x"


def test_constant_channels_are_shifted_alone(load):
    data = load("id,x,c,label\n" + "".join(f"{k},{k},7.1,{'ab'[k % 2]}\n{k},2,7.1,\n" for k in range(10)))
    assert line(data, "channels") == "2: x, c; constant in training: c"
    assert all(abs(step[1]) < 1e-6 for inputs, _ in everything(data) for step in inputs)


def test_channels_are_standardised_by_the_training_split(load):
    data = load(long(40))
    batch = data.batch("train", torch.arange(data.sizes["train"]))
    steps = torch.cat([row[:length] for row, length in zip(batch.inputs, batch.lengths.tolist(), strict=True)])
    torch.testing.assert_close(steps.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(steps.std(0, correction=0), torch.ones(2), atol=1e-5, rtol=0)


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


def test_values_of_a_regression_are_standardised(load):
    text = "id,x,size,weight\n" + "".join(f"{k},{t},{1000 * k},{k % 3}\n" for k in range(20) for t in range(3))
    data = load(text, task="regression", label_column=["size", "weight"])
    assert (data.spec.output_size, data.spec.task, data.spec.output_steps) == (2, "regression", 0)
    train = data.batch("train", torch.arange(data.sizes["train"])).targets
    torch.testing.assert_close(train.mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    assert line(data, "values to predict") == "size from 0 to 19000, weight from 0 to 2"
    raw = load(text, task="regression", label_column="size", standardize=False)
    targets = torch.cat([raw.batch(split, torch.arange(raw.sizes[split])).targets for split in SPLITS])
    assert sorted(targets[:, 0].tolist()) == [1000.0 * k for k in range(20)]
    with pytest.raises(UserError, match=r"line 5, column y: got 1 in series '0', and 2 in its other rows; .*task=forecasting"):
        load("id,v,y\n" + "".join(f"{k},{t},{t}\n" for k in range(5) for t in (2, 2, 2, 1, 2)), task="regression")


def test_forecasts_of_one_series_are_split_by_time(load):
    text = "date,price\n" + "".join(f"2024-01-{day:02},{day}\n" for day in range(1, 31))
    data = load(text, task="forecasting", horizon=2, standardize=False, validation_fraction=0.2, test_fraction=0.2)
    assert data.sizes == {"train": 1, "validation": 1, "test": 1}
    assert "time, the first steps" in line(data, "split by")
    batch = data.batch("train", torch.tensor([0]))
    assert batch.inputs[0, :, 0].tolist() == list(range(1, 17))
    assert batch.targets[0, :, 0].tolist() == list(range(3, 19))
    assert data.batch("test", torch.tensor([0])).inputs[0, :, 0].tolist() == [25, 26, 27, 28]
    cut = load(text, task="forecasting", horizon=2, standardize=False, window=5, timestamp=True, time_scale=1 / 86400)
    batch = cut.batch("train", torch.arange(cut.sizes["train"]))
    assert batch.lengths is None
    assert batch.inputs[:, 0, 0].tolist() == [1, 6, 11, 16]
    assert batch.targets[1, :, 0].tolist() == [8, 9, 10, 11, 12]
    assert batch.times.tolist() == [[0, 1, 2, 3, 4]] * 4
    with pytest.raises(UserError, match=r"dataset\.horizon: got 30, but series 'own' of .*own\.csv has 30 steps"):
        load(text, task="forecasting", horizon=30)
    with pytest.raises(UserError, match=r"expected more than dataset\.horizon=9 in each"):
        load(text, task="forecasting", horizon=9)


def test_reconstruction(load):
    data = load(long(), task="reconstruction", **WHOLE)
    batch = data.batch("train", torch.arange(data.sizes["train"]))
    assert torch.equal(batch.inputs, batch.targets)
    assert batch.labels is not None
    y_alone = load("id,y\n" + "".join(f"{k},{t}\n" for k in range(9) for t in range(3)), task="reconstruction")
    assert line(y_alone, "channels") == "1: y"
    unlabelled = load("id,x\n" + "".join(f"{k},{t}\n" for k in range(9) for t in range(3)), task="reconstruction")
    assert unlabelled.batch("train", torch.tensor([0])).labels is None


def test_times(load):
    text = "id,time,x,label\n" + "".join(f"{k},{1e9 + t},{t},{'ab'[k % 2]}\n" for k in range(10) for t in (0, 0.5, 2))
    assert load(text).batch("train", torch.tensor([0])).times is None
    data = load(text, timestamp=True, time_scale=2.0)
    assert data.spec.times
    assert data.batch("train", torch.tensor([0])).times.tolist() == [[0, 1, 4]]
    with pytest.raises(UserError, match=r"dataset\.timestamp: got true, but .* has no times"):
        load(text.replace("time", "moment"), timestamp=True)


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


def test_the_table_in_the_guide_is_that_of_its_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    guide = (ROOT / "docs/guides/your-data.md").read_text()
    exec(re.search(r"```python\n(.*?)```", guide, re.DOTALL)[1], {})
    table = re.search(r"```text\n(walks.*?)\n```", guide, re.DOTALL)[1]
    assert datasets.load({"name": "files", "path": "walks.csv"}).summary == table


def test_useless_and_wrong_keys_are_refused(load, tmp_path):
    for keys, message in {
        (("horizon", 3),): "dataset.horizon: got 3 with dataset.task=classification",
        (("window", 3),): "dataset.window: got 3 with dataset.task=classification",
        (("split_by", "time"),): "dataset.split_by: got time with dataset.task=classification",
        (("test_fraction", 0.9),): "dataset.test_fraction: got 0.9 with validation_fraction=0.15",
        (("validation_path", "none.csv"),): "dataset.validation_path: got none.csv, which does not exist",
        (("labels_path", "none.csv"),): "dataset.labels_path: got none.csv, expected a file with a table",
        (("missing", "lst"),): "dataset.missing: got 'lst'.*did you mean 'last'",
        (("task", "forecast"),): "dataset.task: got 'forecast'.*did you mean 'forecasting'",
    }.items():
        with pytest.raises(UserError, match=message):
            load(long(), **dict(keys))
    with pytest.raises(UserError, match=r"dataset\.path: got .*nothing\.csv, which does not exist \(.* has "):
        load(None, "nothing.csv")
    with pytest.raises(UserError, match=r"own\.cvs, which does not exist .*; did you mean 'own\.csv'\?"):
        load(None, "own.cvs")
    for name, advice in {
        "own.xlsx": "save the sheet as CSV",
        "own.pkl": "a pickle can run code",
        "own.zip": "unpack it",
    }.items():
        with pytest.raises(UserError, match=rf"got a file '\.\w+', expected .*{advice}"):
            load(b"", name)
