"""The checksum of the code changes with the code that a result depends on, and with nothing else."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

from seqmem import datasets, models, tasks
from seqmem.data.spec import DataSpec
from seqmem.ops import extension
from seqmem.tasks import task_for
from seqmem.training.fingerprint import _needed, _source, fingerprint

SPEC = DataSpec("signs", 1, 2, "classification", 0, 6)


def model(cell):
    with torch.device("meta"):
        return models.build({"network": "recurrent", "cell": cell, "cell_args": {"hidden_size": 4}}, SPEC)


@pytest.fixture(scope="module")
def digits():
    return datasets.load({"name": "digits"})


def test_a_checksum_for_each_cell_and_data_set_and_the_same_again(digits):
    adding = datasets.load({"name": "adding", "train_samples": 3, "validation_samples": 3, "test_samples": 3, "length": 9})
    task = task_for(SPEC)
    found = [fingerprint(model(cell), data, task) for cell in ("legs", "lstm", "gru") for data in (digits, adding)]
    found.append(fingerprint(model("legs"), digits, tasks.get("forecasting")(SPEC)))
    assert len(set(found)) == 7
    assert found[0] == fingerprint(model("legs"), digits, task)


def test_what_is_needed_is_followed_and_what_is_not_is_left_out():
    start = ["seqmem.training.loop.trial", "seqmem.cells.lstm", "seqmem.models.recurrent", "seqmem.tasks.classification"]
    needed = _needed(start, ("seqmem",))
    used = {"seqmem.training.loop.module", "seqmem.tasks.base", "seqmem.ops.lstm", "seqmem.cells.base", "seqmem.data.spec"}
    assert used <= needed
    assert {"seqmem.training.loop.clipping", "seqmem.training.optimisation.schedules"} <= needed
    unused = {
        "seqmem.cells.hmlstm",
        "seqmem.cells.orthogonal",
        "seqmem.results",
        "seqmem.cli.report",
        "seqmem.cli.program",
        "seqmem.compat.hmlstm",
        "seqmem.tasks.regression",
    }
    assert not unused & needed


def test_comments_and_docstrings_have_no_influence_and_code_has(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    texts = {
        "plain": "def double(x):\n    return 2 * x\n",
        "documented": '"""A module."""\n\n\ndef double(x):\n    """Twice."""\n    return 2 * x  # twice\n',
        "changed": "def double(x):\n    return 3 * x\n",
    }
    for name, text in texts.items():
        (tmp_path / f"fingerprinted_{name}.py").write_text(text)
    importlib.invalidate_caches()
    plain, documented, changed = (_source(f"fingerprinted_{name}")[0] for name in texts)
    assert plain != changed
    assert documented == plain
    (tmp_path / "fingerprinted_other.py").write_text("import seqmem.data.spec\nfrom seqmem.cells import LSTM\n")
    assert set(_source("fingerprinted_other")[1]) == {"seqmem.data.spec", "seqmem.cells", "seqmem.cells.LSTM"}
    assert not any(name.startswith("fingerprinted") for name in sys.modules)


def test_the_loaded_operators_count_and_the_checkout_does_not(digits, monkeypatch):
    before = fingerprint(model("legs"), digits, task_for(SPEC))
    found = {before}
    with monkeypatch.context() as patch:
        for sums in ({"sources": "", "sha256": "ab"}, {"sources": "0123456789ab", "sha256": ""}):
            patch.setattr(extension, "CHECKSUMS", sums)
            found.add(fingerprint(model("legs"), digits, task_for(SPEC)))
    with extension.reference_only("a test"):
        found.add(fingerprint(model("legs"), digits, task_for(SPEC)))
    assert len(found) == 4
    # An edit in csrc/ without a build changes nothing: the sources are not read.
    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: b"edited" if path.parent.name == "csrc" else real(path))
    assert fingerprint(model("legs"), digits, task_for(SPEC)) == before
