"""The live view of a sweep in a pseudo terminal: what it shows, and what it leaves behind."""

import codecs
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from contextlib import suppress

import pytest

from tests.engines.commands import ROOT, TINY

pytestmark = pytest.mark.slow

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
HIDE, SHOW, ERASE = "\x1b[?25l", "\x1b[?25h", "\x1b[2K"


def in_terminal(*arguments, cwd, interrupt=None, threads="1"):
    """Run train.py in a terminal of 30 lines.

    Args:
        arguments: of train.py.
        cwd: where it runs.
        interrupt: takes what was written so far; Ctrl-C is typed once it returns True.
        threads: the value of OMP_NUM_THREADS.

    Returns:
        The exit status, and what was written.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 200, 0, 0))
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": threads, "TERM": "xterm"}

    def take_terminal():
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that the terminal sends it the signal of Ctrl-C

    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = subprocess.Popen(command, cwd=cwd, env=environment, preexec_fn=take_terminal, **streams)
    os.close(theirs)
    decoder = codecs.getincrementaldecoder("utf-8")()  # a read may end within a character
    written, deadline = "", time.monotonic() + 400
    with suppress(OSError):  # at the end of the process
        while (found := os.read(ours, 65536)) and time.monotonic() < deadline:
            written += decoder.decode(found)
            if interrupt and interrupt(written):
                os.write(ours, b"\x03")
                interrupt = None
    os.close(ours)
    try:
        return process.wait(60), written
    finally:
        process.kill()


def assert_clean(written):
    """The cursor is shown and the view is erased."""
    assert written.rindex(SHOW) > written.rindex(HIDE)
    after = written[written.rindex(SHOW) :]
    assert not re.search(r"^(running|waiting|done|failed) {2,}", ESCAPE.sub("", after), re.MULTILINE)
    assert ERASE in written[written.rindex(HIDE) :]


@pytest.mark.parametrize("workers", [1, 2])
def test_each_job_is_a_line_until_the_table(workers, tmp_path):
    diverging = ("train.optimizer=sgd", "model.cell_args.hidden_activation=relu", "train.lr=0.01,1e30")
    fixed = [argument for argument in TINY if not argument.startswith(("train.lr=", "train.limit", "train.epochs"))]
    status, written = in_terminal(
        "-m", *fixed, "train.epochs=5", "model=rnn", *diverging, f"runner.workers={workers}", cwd=tmp_path
    )
    plain = ESCAPE.sub("", written)
    assert status == 2
    assert "waiting  rnn (train.lr=1e+30) on digits" in plain
    assert re.search(r"running  rnn \(train.lr=0.01\) on digits: seed 0, epoch \d of 5, \d+%", plain)
    assert re.search(r"done     rnn \(train.lr=0.01\) on digits: validation accuracy \d.\d+, test \d.\d+", plain)
    assert "failed   rnn (train.lr=1e+30) on digits: the training loss became" in plain
    assert "2 of 2 jobs ended, 1 failed" in plain
    assert_clean(written)
    assert "mean +/- sample standard deviation" in written[written.rindex(SHOW) :]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_leaves_a_clean_screen(workers, tmp_path):
    command = ("-m", *TINY[:2], *TINY[3:5], "train.epochs=500", "model=rnn,gru", f"runner.workers={workers}")

    def all_train(text):  # a trial that has not taken a step has nothing to save
        return len(set(re.findall(r"(rnn|gru) on digits: seed 0, epoch (?!1 )", ESCAPE.sub("", text)))) == workers

    status, written = in_terminal(*command, cwd=tmp_path, interrupt=all_train)
    assert status == 130
    assert_clean(written)
    plain = [line.strip() for line in ESCAPE.sub("", written).splitlines()]
    assert sum(line.startswith("interrupted: saves a checkpoint first") for line in plain) == 1
    assert plain[-1] == "error: interrupted; the same command resumes"
    assert len(list(tmp_path.glob("runs/*/seed_0/checkpoints/last.ckpt"))) == workers
