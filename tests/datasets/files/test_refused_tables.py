"""Tables that cannot be understood are refused by one line that names the place."""

import pytest

from seqmem.errors import UserError
from tests.datasets.files.tables import WHOLE, long

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
        r"\(channels: x, y; other columns: remark\).*; did you mean dataset\.label_column=remark\?",
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
