"""Locks that die with their process."""

import os
import signal
import subprocess
import sys
import time

import pytest

from seqmem.errors import UserError
from seqmem.io.files import locked

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


def test_a_lock_is_free_when_its_holder_lets_go_whatever_was_forked_meanwhile(tmp_path):
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


def test_a_lock_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/\.lock"), locked(tmp_path / "file" / ".lock"):
        pass
