"""Columns of a table: named by keys, guessed by their names, ignored, or refused."""

import time

import pandas as pd
import pytest
import torch

from seqmem.errors import UserError
from seqmem.io import frames
from seqmem.io.collection import Reading
from seqmem.io.columns import Columns
from seqmem.io.sources import read_source
from seqmem.io.tables import Table
from tests.datasets.files.tables import EXPECTED, NAMES, WHOLE, everything, line, loaded, long


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


@pytest.mark.parametrize("name", ["id", "Recording ID", "episode", "episode_id", "file_id", "filename", "unique_id"])
def test_ids_are_recognised_by_their_names(load, name):
    data = load(long(header=f"{name},time,x,y,label"), **WHOLE)
    assert line(data, "series id") == name
    assert everything(data) == EXPECTED


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


def test_numbers_with_thousands_separators_are_not_left_out_as_texts(tmp_path):
    path = tmp_path / "own.csv"
    rows = [f'{name},{t},{t},"{k + 1},{t}00.5",{k % 2}' for k, name in enumerate(NAMES) for t in range(3)]
    path.write_text("id,time,a,b,label\n" + "\n".join(rows))
    with pytest.raises(UserError, match=r"own.csv, line 2, column b: got '1,000.5', expected a number.*no thousands separator"):
        loaded(path)
    path.write_text(path.read_text().replace('.5"', ' km"'))
    assert loaded(path).spec.input_size == 1


def test_numbers_with_underscores_are_not_left_out_as_texts(load):
    def table(cell):
        return "id,time,a,b,label\n" + "\n".join(f"s{k},{t},{t},{cell(k)},{k % 2}" for k in range(20) for t in range(3))

    with pytest.raises(UserError, match=r"line 2, column b: got '1_000', expected .*no thousands sep.*channel_columns=\[x,y\]"):
        load(table(lambda k: f"{k + 1}_000"))
    assert line(load(table(lambda k: f"2020_{k:02}")), "channels") == "1: a"
    with pytest.raises(UserError, match=r"line 2, column b: got '1_000,5', expected"):
        load(table(lambda k: f"{k + 1}_000,5").replace(",", ";").replace("_000;5", "_000,5"))


def test_addresses_are_texts_and_no_numbers_with_thousands_points(load):
    rows = [f"s{k},{t},{t},192.168.1{k}.2{t:02},{k % 2}" for k in range(10, 30) for t in range(3)]
    data = load("id,time,a,address,label\n" + "\n".join(rows))
    assert (line(data, "channels"), line(data, "ignored columns")) == ("1: a", "address")
    with pytest.raises(UserError, match=r"line 2, column address: got '1\.000\.000\.000', expected a number"):
        load("id,time,a,address,label\n" + "\n".join(rows).replace("192.168.110.200", "1.000.000.000"))


def test_a_column_with_the_name_of_a_label_or_group_is_no_channel_beside_another_one(load):
    rows = [f"s{k},{t},{k + t},{'ab'[k % 2]},{k % 2},{k // 4},{k // 8}" for k in range(20) for t in range(3)]
    data = load("id,time,x,class,target,subject,subject_id\n" + "\n".join(rows))
    assert (line(data, "label"), line(data, "group")) == ("class", "subject")
    assert (line(data, "channels"), line(data, "ignored columns")) == ("1: x", "target, subject_id")


def test_a_column_of_dates_is_the_time_and_not_a_temperature(load):
    rows = [f"2024-01-{day:02},{20 + day % 5},{1000 - day}" for day in range(1, 32)]
    data = load("date,T,p\n" + "\n".join(rows), task="forecasting")
    assert (line(data, "time"), line(data, "channels")) == ("date, dates in seconds", "2: T, p")


def test_days_written_as_numbers_are_dates(load):
    rows = [f"202402{day:02},{day}" for day in range(1, 30)] + ["20240301,30"]
    data = load("date,x\n" + "\n".join(rows), task="forecasting", timestamp=True, window=30, time_scale=1 / 86400)
    assert line(data, "time") == "date, dates in seconds"
    assert max(data.batch(split, torch.tensor([0])).times.diff(dim=1).max() for split in data.sizes) == 1


def test_times_of_several_files_are_of_one_kind(load, tmp_path):
    dated = long()
    for t in range(3):
        dated = dated.replace(f",{t},", f",2024-01-0{1 + t},")
    (tmp_path / "test.csv").write_text(dated)
    with pytest.raises(
        UserError, match=r"got numbers as times, and dates without an offset .*test.csv; expected the same kind of times"
    ):
        load(long(10).replace("s", "t"), test_path=str(tmp_path / "test.csv"))


def test_a_wrong_name_of_a_split_is_refused(load):
    """The column would be ignored, and the splits drawn."""
    rows = [f"s{k},{t},{k + t},{'ab'[k % 2]},{['train', 'val', 'test', 'eval'][k % 4]}" for k in range(20) for t in range(3)]
    with pytest.raises(UserError, match=r"column split: got 'eval', expected train, validation or test"):
        load("id,time,x,label,split\n" + "\n".join(rows))


def test_cells_of_true_and_false_are_numbers_also_beside_empty_ones(load):
    rows = [f"s{k},{t},{('True', 'False', '')[(k + t) % 3]},{'ab'[k % 2]}" for k in range(20) for t in range(3)]
    data = load("id,time,moving,label\n" + "\n".join(rows), standardize=False)
    assert (line(data, "channels"), line(data, "missing values")[:8]) == ("1: moving", "20 of 60")
    assert data.batch("train", torch.arange(data.sizes["train"])).inputs.unique().tolist()[::2] == [0.0, 1.0]


def test_a_column_called_set_is_a_channel_unless_it_names_splits(load):
    rows = [f"s{k},{t},{k + t},{t * k},{'ab'[k % 2]}" for k in range(20) for t in range(3)]
    assert line(load("id,t,x,set,label\n" + "\n".join(rows)), "channels") == "2: x, set"


def test_dates_with_and_without_an_offset_are_not_mixed(tmp_path):
    """Those without one would be taken for UTC, hours beside the others."""
    for k in range(4):
        rows = "".join(f"2024-01-0{day}T10:00{'+02:00' * (k == 2)},{day}\n" for day in range(1, 5))
        (tmp_path / f"{k}.csv").write_text(f"time,x\n{rows}")
    with pytest.raises(
        UserError, match=r"0\.csv: got dates without an offset from UTC as times, and dates with an .*2\.csv; exp"
    ):
        read_source(tmp_path, Reading(target="none"))
    (tmp_path / "one.csv").write_text("id,time,x\na,2024-01-01T10:00+02:00,1\na,2024-01-01T10:30,2\n")
    with pytest.raises(
        UserError, match=r"line 3, column time: got '2024-01-01T10:30', a date without .*'2024-01-01T10:00\+02:00' .* line 2;"
    ):
        read_source(tmp_path / "one.csv", Reading(target="none"))


def test_names_of_splits_of_a_series_count_in_any_case(load):
    rows = [f"s{k},{t},{k},{'ab'[k % 2]},{('Train', 'VAL', 'test')[k % 3]}" for k in range(12) for t in range(2)]
    rows = [row.replace("VAL", "validation") if row.split(",")[1] == "1" else row for row in rows]
    rows = [row.replace("test", "Test") if row.split(",")[1] == "1" else row for row in rows]
    assert load("id,time,x,label,split\n" + "\n".join(rows)).sizes == {"train": 4, "validation": 4, "test": 4}
    with pytest.raises(UserError, match=r"column split: got 'test' in series 's0', expected 'Train' as in its other rows"):
        load("id,time,x,label,split\n" + "\n".join([rows[0], rows[1].replace("Train", "test"), *rows[2:]]))


def test_columns_are_sought_without_a_pass_over_all_for_each(tmp_path, monkeypatch):
    names = [f"t{k}" for k in range(20000)]
    table = Table(tmp_path, pd.DataFrame([[0.0] * len(names)], columns=names), True, str)
    monkeypatch.setattr(frames, "is_mostly_numbers", lambda table, name: True)
    begin = time.process_time()
    assert frames._channels(table, Columns(None, None, (), None, None), Reading()) == (names, [])
    assert time.process_time() - begin < 1  # 10 ms; 4 s with a list for the names of channels


def test_dates_of_a_column_with_an_unknown_name_are_noticed(load):
    rows = [f"s{k};2024-03-02T09:00:0{t}.5+02:00;{k + t};{'ab'[k % 2]}" for k in range(20) for t in range(3)]
    text = "id;Zeit;x;label\n" + "\n".join(rows)
    assert line(load(text), "time") == "none; Zeit holds dates: dataset.time_column=Zeit"
    data = load(text, time_column="Zeit", timestamp=True)
    assert line(data, "time") == "Zeit, dates in seconds"
    assert data.batch("train", torch.arange(2)).times.tolist() == [[0.0, 1.0, 2.0]] * 2
