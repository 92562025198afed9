"""Columns of a table: named by keys, guessed by their names, ignored, or refused."""

import pytest
import torch

from seqmem.errors import UserError
from seqmem.io.collection import Reading
from seqmem.io.sources import read_source
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
    with pytest.raises(UserError, match=r"got numbers as times, and dates in .*test.csv; expected the same kind of times"):
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


def test_files_with_and_without_an_offset_have_times_in_utc(tmp_path):
    for k in range(20):
        offset = "+02:00" * (k % 2)
        rows = "".join(f"2024-01-0{day}T10:00{offset},{day}\n" for day in range(1, 5))
        (tmp_path / f"{k}.csv").write_text(f"time,x\n{rows}")
    found = read_source(tmp_path, Reading(target="none"))
    assert found.time_unit == "seconds in UTC"


def test_dates_of_a_column_with_an_unknown_name_are_noticed(load):
    rows = [f"s{k};2024-03-02T09:00:0{t}.5+02:00;{k + t};{'ab'[k % 2]}" for k in range(20) for t in range(3)]
    text = "id;Zeit;x;label\n" + "\n".join(rows)
    assert line(load(text), "time") == "none; Zeit holds dates: dataset.time_column=Zeit"
    data = load(text, time_column="Zeit", timestamp=True)
    assert line(data, "time") == "Zeit, dates in seconds"
    assert data.batch("train", torch.arange(2)).times.tolist() == [[0.0, 1.0, 2.0]] * 2
