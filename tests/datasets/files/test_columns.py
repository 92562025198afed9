"""Columns of a table: named by keys, guessed by their names, ignored, or refused."""

import pytest

from seqmem.errors import UserError
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
