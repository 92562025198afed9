"""Text tables as people have them: encodings, separators, decimal marks, headers and layouts."""

import gzip
import re
import time

import numpy as np
import pytest
import torch

from seqmem import datasets
from seqmem.cli import commandline
from seqmem.errors import UserError
from tests.datasets.files.tables import (
    EXPECTED,
    EXPECTED_WIDE,
    TABLES,
    WHOLE,
    WIDE,
    WIDE_TABLES,
    everything,
    line,
    loaded,
    long,
)


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


def test_a_table_of_thousands_of_columns_takes_seconds(tmp_path):
    rows = np.random.default_rng(0).normal(size=(12, 4000)).round(2).astype(str)
    lines = [",".join([str(k % 2), *row]) for k, row in enumerate(rows)]
    (tmp_path / "wide.csv").write_text("\n".join([",".join(["label", *(f"t{k}" for k in range(4000))]), *lines]) + "\n")
    begin = time.process_time()
    assert loaded(tmp_path / "wide.csv").spec.max_length == 4000
    assert time.process_time() - begin < 10  # 1 s; 16 s with a pass over the names for each name


@pytest.mark.parametrize(
    "header", ["label,1960,1961,1962", "id,label,400,402,407", "country,label,2001,2000,1999", "label,0,1,2", "label,t0,t1,t2"]
)
def test_numbers_name_the_steps_of_a_wide_table(load, header):
    ids = "" if header.startswith("label") else "s{k},"
    rows = [ids.format(k=k) + f"{'ab'[k % 2]},{k},{k + 1},{k % 3}" for k in range(20)]
    keys = {"id_column": "country"} if header.startswith("country") else {}
    data = load("\n".join([header, *rows]), **keys)
    assert (line(data, "series"), line(data, "steps")) == ("20", "3 in each series")


@pytest.mark.parametrize("header", ["id,time,NA,FR,label", "name,step,nan,missing,kind", "id,2020_01,NA,2020_03,label"])
def test_names_that_are_marks_of_missing_numbers_are_a_header(load, header):
    rows = [f"s{k // 3},{k % 3},{k},{k + 1},{'ab'[k // 3 % 2]}" for k in range(30)]
    keys = {"id_column": header.split(",")[0], "label_column": header.split(",")[-1]}
    data = load("\n".join([header, *rows]), **keys)
    assert (line(data, "series"), line(data, "channels")[0]) == ("10", "3" if "2020" in header else "2")


@pytest.mark.parametrize("first", ["s1,NA,NA,a", "s1,,NA,b", "s1,nan,1,a"])
def test_a_first_row_of_missing_numbers_is_a_series(load, first):
    rows = [f"s{k},{k % 7},{k % 3},{'ab'[k % 2]}" for k in range(2, 21)]
    keys = {"id_column": "0", "label_column": "3", "layout": "long"}
    assert line(load("\n".join([first, *rows]), **keys), "series") == "20"


def test_a_header_that_is_not_recognised_is_a_hint(load):
    rows = [f"s{k // 2},{k % 2},{k},{'ab'[k // 2 % 2]}" for k in range(20)]
    for header, column in (("id,time,7,label", 1), ("id,2024,x,label", 2)):
        with pytest.raises(UserError, match=rf"line 1, column {column}: got .*; if the first line .* dataset\.header=true"):
            load("\n".join([header, *rows]), id_column="0", label_column="3")
    with pytest.raises(
        UserError, match=r"line 1, column 1: got 'time', expected a number in every row, or a date .*header=true"
    ):
        load("\n".join(["id,time,7,label", *rows]), id_column="0", label_column="3", time_column="1")


def german(cell, rows=150, column="x"):
    """A table with decimal commas of two steps a series, whose last number is a cell."""
    lines = [f"s{k};{t};{k},{t};v{k % 2}.5;1.2" for k in range(rows) for t in range(2)]
    return f"id;time;{column};label;remark\n" + "\n".join([*lines[:-1], lines[-1].replace(f"{rows - 1},1", cell)])


@pytest.mark.parametrize("cell", ["1.234", "2.345.678,5", "0.5", "1,234,5"])
def test_points_in_a_table_with_decimal_commas_are_refused(load, cell):
    """A point may separate thousands, also after the rows that are looked at for the decimal mark."""
    keys = {"channel_columns": ["x"]}
    with pytest.raises(
        UserError, match=rf"own\.csv, line 301, column x: got '{re.escape(cell)}', expected a number.*thousands"
    ):
        load(german(cell), **keys)
    with pytest.raises(UserError, match=r"own\.csv.* line 41.*: got .*thousands|: got '0,0' in line 2 and .* in line 41"):
        load(german(cell, 20), **keys)
    assert load(german("149,1"), **keys).spec.input_size == 1


def test_one_column_with_decimal_commas_and_one_with_points_are_refused(load):
    """One of them would be left out as texts, or read as numbers that are a thousandth."""
    text = "id;time;x;y;label\n" + "\n".join(f"s{k};{t};{k},5;1.{k:03};{'ab'[k % 2]}" for k in range(20) for t in range(2))
    with pytest.raises(UserError, match=r"own\.csv: got '0,5' in line 2 and '1\.000' in line 2, expected one decimal mark"):
        load(text)
    with pytest.raises(UserError, match=r"line 2, column y: got '1\.000,5', expected a number.*no thousands separator"):
        load(re.sub(r"(1\.\d+);", r"\1,5;", text))


@pytest.mark.parametrize("first", ["a,1,2,3", "a,5,5,5", "a,1,2,4"])
def test_a_first_row_of_numbers_beside_a_class_is_a_series(load, first):
    rows = [f"{'ab'[k % 2]},{k},{k + 1},{k + 2}" for k in range(19)]
    assert line(load("\n".join([first, *rows]), label_column="0"), "series") == "20"


@pytest.mark.parametrize("first", ["s0,5,6,7", "s0,2,4,6"])
def test_a_first_row_of_numbers_beside_a_name_is_a_series(load, first):
    rows = [f"s{k},{k % 7},{k % 3},{k % 5}" for k in range(1, 20)]
    data = load("\n".join([first, *rows]), id_column="0", layout="wide", task="reconstruction")
    assert line(data, "series") == "20"


def test_countries_over_years_have_a_header(load):
    rows = [f"land {'abcdefghijklmnopqrst'[k]},{k},{k + 1},{k % 3},{k % 4}" for k in range(20)]
    data = load("\n".join(["country,1960,1970,1980,1990", *rows]), id_column="country", task="reconstruction", layout="wide")
    assert (line(data, "series"), line(data, "steps")) == ("20", "4 in each series")


@pytest.mark.parametrize("blank", ["", "\t", "   ", '"\t"', ",", '"",""'])
@pytest.mark.parametrize("quote", ["", '"'])
def test_no_row_is_lost_beside_a_blank_line(load, blank, quote):
    rows = [f"{quote}s{k}{quote},{t},{10 * k + t},{'ab'[k % 2]}" for k in range(20) for t in range(3)]
    rows.insert(4, blank)
    data = load("id,t,x,label\n" + "\n".join(rows), standardize=False)
    batches = [data.batch(split, torch.arange(size)) for split, size in data.sizes.items()]
    values = torch.cat([batch.inputs.flatten() for batch in batches])
    assert sorted(values.tolist()) == sorted(10.0 * k + t for k in range(20) for t in range(3))
