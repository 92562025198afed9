"""Atomic writes and locks: after a kill a file is the old or the new one, and the lock is free."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from seqmem.errors import UserError
from seqmem.io.files import file_name, locked, remove_left_behind, replacing, write_text

HOLD = """
import sys, time
from pathlib import Path
from seqmem.io.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_process_holds_a_lock_until_it_is_killed(tmp_path):
    path = tmp_path / "new" / ".lock"
    with locked(path, wait=False) as held:
        assert held
        with locked(path, wait=False) as again:
            assert not again
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    with locked(path, wait=False) as held:
        assert not held
    other.send_signal(signal.SIGKILL)
    with locked(path) as held:
        assert held
    other.wait()
    other.stdout.close()


def test_a_released_lock_is_free_whatever_was_forked_in_the_meantime(tmp_path):
    with locked(tmp_path / ".lock"):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    try:
        with locked(tmp_path / ".lock", wait=False) as held:
            assert held
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_lock_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/\.lock"), locked(tmp_path / "file" / ".lock"):
        pass


WRITE = """
import json, sys
from pathlib import Path
from seqmem.io.files import write_text
for k in range(10**9):
    write_text(Path(sys.argv[1]), json.dumps({"k": k, "filler": "x" * 100000}))
"""


def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "record.json"
    for wait in range(4):
        path.unlink(missing_ok=True)
        process = subprocess.Popen([sys.executable, "-c", WRITE, str(path)])
        while not path.exists():
            time.sleep(0.01)
        time.sleep(0.023 * wait)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
        assert len(json.loads(path.read_text())["filler"]) == 100000
    remove_left_behind(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["record.json"]


def test_a_write_leaves_the_content_of_the_old_file_alone(tmp_path):
    path, linked = tmp_path / "record.json", tmp_path / "linked.json"
    write_text(path, "old")
    os.link(path, linked)
    write_text(path, "new")
    assert [path.read_text(), linked.read_text()] == ["new", "old"]


def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    write_text(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*record.json \(No space left on device\)"):
        write_text(path, "new")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text(str(1 / 0))
    assert [entry.name for entry in tmp_path.iterdir()] == ["record.json"]
    assert path.read_text() == "old"


def test_a_name_of_a_file_needs_no_quotes():
    for text, name in {
        "text8 prefix_lstm": "text8_prefix_lstm",
        "text a=b's #1 (2)": "text_a_b_s_1_2_",
        "caf\u00e9 \u0442": "cafe_",
        "-rf": "rf",
        "../x": "_x",
    }.items():
        assert file_name(text) == name
    assert len(file_name("long" * 100)) == 100
