"""Keys of dataset=files: refused where they have no effect or a wrong value; and the guide's example."""

import re

import pytest

from seqmem import datasets
from seqmem.errors import UserError
from tests.datasets.files.tables import long
from tests.program import ROOT


def test_useless_and_wrong_keys_are_refused(load, tmp_path):
    for keys, message in {
        (("horizon", 3),): "dataset.horizon: got 3 with dataset.task=classification",
        (("window", 3),): "dataset.window: got 3 with dataset.task=classification",
        (("split_by", "time"),): "dataset.split_by: got time with dataset.task=classification",
        (("test_fraction", 0.9),): "dataset.test_fraction: got 0.9 with validation_fraction=0.15",
        (("validation_path", "none.csv"),): "dataset.validation_path: got none.csv, which does not exist",
        (("labels_path", "none.csv"),): "dataset.labels_path: got none.csv, expected a file with a table",
        (("time_scale", 2.0),): "dataset.time_scale: got 2.0 without times, expected 1 or dataset.timestamp=true",
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


def test_a_missing_file_is_shown_with_the_files_of_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "own.csv").write_text(long())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"got other\.csv, which does not exist \(the current folder has own\.csv\)"):
        datasets.load({"name": "files", "path": "other.csv"})


def test_the_table_in_the_guide_is_that_of_its_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    guide = (ROOT / "docs/guides/your-data.md").read_text()
    exec(re.search(r"```python\n(.*?)```", guide, re.DOTALL)[1], {})
    table = re.search(r"```text\n(walks.*?)\n```", guide, re.DOTALL)[1]
    assert datasets.load({"name": "files", "path": "walks.csv"}).summary == table
