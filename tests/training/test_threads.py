"""The number of threads of a trial that resumes, and why it is a different one."""

import json
import os

import pytest
import torch

from seqmem.training.loop import threads


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """Of a trial on the CPU that two threads trained, on a machine of two cores without a setting from outside."""
    for name in threads._VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    recorded(tmp_path, {"backend": "cpu compiled", "machine": {"threads": 2}})
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path / "checkpoints" / "last.ckpt"
    torch.set_num_threads(before)


def recorded(folder, record):
    (folder / "record.json").write_text(json.dumps(record))


def test_a_trial_resumes_with_the_recorded_number(checkpoint, capsys):
    assert threads.to_resume_with(checkpoint) == 2
    with threads.as_before(checkpoint, "runs/a"):
        assert torch.get_num_threads() == 2
        assert os.environ["OMP_NUM_THREADS"] == "2"
    assert torch.get_num_threads() == 1
    assert "OMP_NUM_THREADS" not in os.environ
    assert capsys.readouterr().err == "runs/a: resumes with 2 threads as before, not with 1\n"


@pytest.mark.parametrize(
    ("environment", "cores", "mend"),
    [("1", 2, "OMP_NUM_THREADS=2 resumes as it began"), (None, 1, "this machine has 1 core")],
)
def test_one_line_names_both_numbers_where_it_cannot(checkpoint, capsys, monkeypatch, environment, cores, mend):
    if environment:
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
    monkeypatch.setattr(threads, "usable_cores", lambda: cores)
    assert threads.to_resume_with(checkpoint) is None
    with threads.as_before(checkpoint, "runs/a"):
        assert torch.get_num_threads() == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("runs/a: resumes with 1 thread, after 2 before; ")
    assert line.endswith(f"; {mend}")


@pytest.mark.parametrize(
    "record",
    [
        {"backend": "cpu compiled", "machine": {"threads": 1}},
        {"backend": "cuda compiled", "machine": {"threads": 2}},
        {"backend": "cpu compiled", "machine": {"threads": "2"}},
        {"backend": "cpu compiled", "machine": None},
        {},
        [],
    ],
)
def test_nothing_is_said_of_the_same_number_a_gpu_or_an_unknown_number(checkpoint, capsys, record):
    recorded(checkpoint.parent.parent, record)
    for path in (checkpoint, checkpoint.parent / "elsewhere" / "a" / "b.ckpt", None):
        with threads.as_before(path, "runs/a"):
            assert torch.get_num_threads() == 1
    assert capsys.readouterr().err == ""
