"""Damaged tables of one's own are loaded or refused by one line, whatever is in them."""

import random
import re
import warnings

import pytest

from seqmem import datasets
from seqmem.errors import DataWarning, UserError
from tests.datasets.files.tables import TABLES, WIDE_TABLES

PIECES = [
    b",",
    b";",
    b"\n",
    b'"',
    b"\r",
    b"\t",
    b" ",
    b"",
    b"NA",
    b"-",
    b"1e400",
    b"nan",
    b"inf",
    b"id",
    b"label",
    b"2024-01-01",
]
PIECES += [
    b"\xff",
    b"0",
    b"1,5",
    b"1.5",
    b"\0",
    b"train",
    b"|",
    b"x",
    b"True",
    b"9" * 30,
    b"1_000",
    b"0x10",
    "\u0661".encode(),
    b"#",
]


def damaged(number):
    """A table with some bytes replaced, and keys."""
    draw = random.Random(number)
    content = bytearray(draw.choice([*TABLES.values(), *WIDE_TABLES.values()]).encode())
    for _ in range(draw.choice([0, 1, 1, 2, 4])):
        place = draw.randrange(len(content))
        content[place : place + draw.choice([0, 1, 3, 10])] = draw.choice(PIECES) * draw.choice([1, 1, 1, 5])
    if draw.random() < 0.1:
        del content[draw.randrange(len(content)) :]
    keys = {"task": draw.choice(["classification", "regression", "forecasting", "reconstruction"])}
    keys["missing"] = draw.choice(["last", "mean", "mask", "refuse"])
    for key, values in {"layout": ["long", "wide"], "header": [True, False], "label_column": ["0", "label", "x"]}.items():
        if draw.random() < 0.2:
            keys[key] = draw.choice(values)
    return bytes(content), keys


@pytest.mark.parametrize("numbers", [range(25), pytest.param(range(25, 1500), marks=pytest.mark.slow)], ids=["few", "many"])
def test_damaged_tables_are_loaded_or_refused_by_one_line(numbers, tmp_path):
    path = tmp_path / "own.csv"
    loaded, refused = 0, []
    for number in numbers:
        content, keys = damaged(number)
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            try:
                data = datasets.load({"name": "files", "path": str(path), **keys})
            except UserError as error:
                refused.append(str(error))
                continue
        loaded += 1
        for split in datasets.SPLITS:
            for batch in data.loader(split, 3):
                assert batch.inputs.isfinite().all(), number
    assert loaded
    assert refused
    for message in refused:
        assert "\n" not in message
        assert re.search(r"own|dataset\.|channel|series", message), message
