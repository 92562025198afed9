"""Values that are missing in one's own files: their marks, and how inputs are filled."""

import pandas as pd
import pytest

from seqmem.errors import UserError
from tests.datasets.files.tables import EXPECTED, WHOLE, everything, line, loaded, long


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
    standardised = load(text, missing="mean", validation_fraction=0.2, test_fraction=0.2)
    assert everything(standardised)[0][0] == [[0.0], [-1.0], [0.0], [1.0]]


@pytest.mark.parametrize("separator", ["", ",", "\t", ";"], ids=["quotes", "comma", "tab", "semicolon"])
def test_an_empty_row_between_steps_is_a_missing_step(load, separator):
    """As pandas writes it; a blank line is none, and rows at the end are not, either."""
    two, empty = bool(separator), separator or '""'
    rows = [empty if t % 10 == 5 else (f"{t}{separator}{-t}" if two else str(t)) for t in range(200)]
    data = load("\n\n".join([f"x{separator}y" if two else "x", *rows, empty, empty]), task="forecasting", standardize=False)
    assert (line(data, "series"), line(data, "steps")) == ("1", "200 in each series")
    assert line(data, "missing values").startswith("40 of 400 " if two else "20 of 200 ")


@pytest.mark.parametrize("keys", [{}, {"task": "reconstruction", "window": 3}])
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_refused_missing_value_is_named_by_its_place(tmp_path, keys, in_memory):
    table = pd.DataFrame([(f"s{k:02}", k % 2, float(t)) for k in range(10) for t in range(6)], columns=["id", "label", "x"])
    table.loc[3 * 6 + 4, "x"] = None
    if in_memory:
        table.to_csv(tmp_path / "own", index=False)
    else:
        pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
        table.to_parquet(tmp_path / "own")
    path = (tmp_path / "own").rename(tmp_path / ("own.csv" if in_memory else "own.parquet"))
    expected = (
        r"own\.\w+, series 's03', step 4, channel x: got a missing value, .* dataset\.missing=refuse; fill it in, or train"
    )
    with pytest.raises(UserError, match=expected):
        everything(loaded(path, missing="refuse", in_memory=in_memory, **keys))
