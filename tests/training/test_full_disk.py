"""A disk that fills during a training: the old files stay valid, one line says what failed, and the trial resumes."""

import json
import re
import resource
import shutil
import subprocess
from contextlib import contextmanager

import pytest
import torch

from seqmem import datasets
from seqmem.cli import commandline
from seqmem.errors import UserError
from seqmem.io import archive
from seqmem.io.series_files import write_series
from seqmem.results import RunFolder
from seqmem.training.checkpoints.files import load_plain, save_plain
from seqmem.training.loop.module import SequenceModule
from tests.program import run
from tests.trials import assert_same, run_trials

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

TRIAL = [
    "dataset=digits",
    "model=lstm",
    "model.preset=tiny",
    "train.epochs=4",
    "train.limit_train_batches=3",
    "train.limit_val_batches=2",
    "train.limit_test_batches=2",
]


@contextmanager
def no_file_longer_than(size):
    """Let writes beyond ``size`` bytes of a file fail half-way, as on a full disk. (Python ignores the signal for it.)"""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Config, data and the trial on a disk that does not fill."""
    config = commandline.compose(TRIAL)
    data = datasets.load(config["dataset"])
    [trial] = run_trials(config, data, tmp_path_factory.mktemp("whole"))
    return config, data, trial


def write(path):
    """Write random numbers with the writer of the path's suffix."""
    values = {"a": torch.rand(4096), "b": torch.rand(1000)}
    if path.suffix == ".ckpt":
        save_plain(values, path)
    elif path.suffix == ".zip":
        archive.write(path, {}, values)
    else:
        write_series(path, list(values), [value.numpy()[:, None] for value in values.values()])


def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path):
    paths = [tmp_path / f"x{suffix}" for suffix in (".ckpt", ".zip", ".npz", ".csv")]
    for path in paths:
        write(path)
        old = path.read_bytes()
        for size in (0, 100, len(old) // 2, len(old) - 200):
            with no_file_longer_than(size), pytest.raises(UserError, match=rf"^cannot write {path} \(File too large\)$"):
                write(path)
            assert path.read_bytes() == old
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    before = path.with_name("before")
    before.hardlink_to(path)
    write(path)
    assert before.read_bytes() == old  # a new file took its name: nothing was written in place
    assert path.read_bytes() != old


@pytest.mark.parametrize(
    ("method", "call", "size", "named"),
    [
        ("training_step", 7, 10_000, r"checkpoints/(best|last)\.ckpt"),
        pytest.param("training_step", 7, 100, r"metrics\.csv", marks=pytest.mark.slow),
        ("test_step", 1, 1000, r"record\.json"),
    ],
    ids=["checkpoint", "metrics", "record"],
)
def test_a_trial_resumes_after_the_disk_was_full(method, call, size, named, whole, tmp_path, monkeypatch):
    config, data, trial = whole
    original, calls = getattr(SequenceModule, method), []
    with monkeypatch.context() as patch, no_file_longer_than(resource.RLIM_INFINITY):

        def fill(self, *args):
            calls.append(None)
            if len(calls) == call:
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            return original(self, *args)

        patch.setattr(SequenceModule, method, fill)
        with pytest.raises(UserError, match=rf"^cannot write \S+/seed_0/{named} \(File too large\)$"):
            run_trials(config, data, tmp_path / "full")
    [path] = (tmp_path / "full").glob("*/seed_0")
    epochs = 2 if method == "training_step" else 4
    assert load_plain(path / "checkpoints/last.ckpt")["epoch"] == epochs - 1
    load_plain(path / "checkpoints/best.ckpt")
    assert len(RunFolder(path).read_metrics()) in (epochs, epochs + 1)
    assert json.loads((path / "record.json").read_text())["status"] in ("running", "failed")
    assert [found.name for found in path.rglob(".*")] == [".lock"]
    [resumed] = run_trials(config, data, tmp_path / "full")
    assert resumed.read_record()["resumed_at"] == [3 * epochs]
    assert_same(trial, resumed)


@pytest.mark.slow
def test_a_small_disk_ends_the_program_with_one_line_and_more_space_lets_it_resume(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        command = ["train.py", *TRIAL, f"output_dir={disk}"]
        full = run(command, tmp_path)
        assert full.returncode == 2
        assert full.stderr.count("\n") == 1
        assert re.fullmatch(
            rf"error: cannot write {disk}/\S+/seed_0/checkpoints/\w+.ckpt \(No space left on device\)\n", full.stderr
        )
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        closed = run(command, tmp_path)
        assert (closed.returncode, closed.stderr.count("\n")) == (2, 1)
        assert "Read-only file system" in closed.stderr
        subprocess.run(["mount", "-o", "remount,rw,size=8m", str(disk)], check=True)
        assert run(command, tmp_path).returncode == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)
