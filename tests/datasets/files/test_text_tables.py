"""Text tables as people have them: encodings, separators, decimal marks, headers and layouts."""

import gzip
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
