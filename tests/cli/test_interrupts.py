"""Ctrl-C and SIGTERM at any moment of a command: one line, status 130 or 143, and the same numbers in the end."""

import json
import random
import re
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from tests import program

SWEEP = ["train.py", "-m", "dataset=digits", "model=rnn,gru", "model.preset=tiny", "train.epochs=3"]
SWEEP += [f"train.limit_{split}_batches=3" for split in ("train", "val", "test")]
TIMED = ["seconds", "sequences_per_second", "peak_memory_mib"]
LINE = r"error: interrupted(; the same command resumes)?\n"
NOTE = r"(interrupted: saves a checkpoint first; a second signal, at least a second later, ends at once\n)?"
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}


def begun(folder, model):
    """A function that is true once a trial of a model has its first epoch."""
    return lambda process: bool(list(folder.glob(f"runs/digits_{model}_*/seed_0/metrics.csv")))


@pytest.mark.parametrize("number", STATUS)
def test_a_sweep_that_is_interrupted_ends_with_one_line_and_its_status(number, tmp_path):
    command = [word.replace("epochs=3", "epochs=400") for word in SWEEP]
    done = program.run(command, tmp_path, interrupt=(begun(tmp_path, "rnn"), number))
    assert re.fullmatch(NOTE + LINE, done.stderr), done.stderr
    assert done.returncode == STATUS[number]
    records = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/seed_0/record.json")]
    assert [(record["status"], record["model"]) for record in records] == [("interrupted", "rnn")]
    [manifest] = tmp_path.glob("runs/sweep_*/sweep.json")
    assert [job["failure"] for job in json.loads(manifest.read_text())["jobs"]] == [None, None]


STARTED = r"(error|python -m seqmem\.report): interrupted\n"


def test_a_sweep_that_is_interrupted_while_it_starts_ends_with_one_line(tmp_path):
    done = program.run(SWEEP, tmp_path, interrupt=(program.handles_signals, signal.SIGINT))
    assert re.fullmatch(STARTED, done.stderr), done.stderr
    assert done.returncode == 130
    assert done.stdout == ""


@pytest.mark.slow
@pytest.mark.parametrize("command", [["-m", "seqmem.report", "."], ["evaluate.py", "nowhere"]])
def test_a_short_command_that_is_interrupted_while_it_imports_ends_with_one_line(command, tmp_path):
    """In a process of its own, since one that has imported all fails before the signal comes."""
    words = [str(program.ROOT / word) if word.endswith(".py") else word for word in command]
    with subprocess.Popen(
        [sys.executable, *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None and not program.handles_signals(process.pid):
            time.sleep(0.003)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert re.fullmatch(STARTED, stderr), stderr
    assert process.returncode == 130
    assert stdout == ""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_sweep_interrupted_at_many_moments_always_says_so_and_gives_the_same_table(workers, tmp_path):
    """Twenty moments from the first line to the last, half of them SIGTERM, after which the same command ends the sweep."""
    command = [*SWEEP, f"dataset.num_workers={workers}", "runner.ntrials=2"]
    whole = tmp_path / "whole"
    whole.mkdir()
    began = time.monotonic()
    done = program.run(command, whole)
    lasted = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    chance, interrupted = random.Random(workers), 0
    for k in range(20):
        folder = tmp_path / f"{k // 4}"
        folder.mkdir(exist_ok=True)
        number = (signal.SIGINT, signal.SIGTERM)[k % 2]
        at = time.monotonic() + chance.uniform(0, 1) * lasted
        done = program.run(
            command,
            folder,
            interrupt=(lambda process, at=at: program.handles_signals(process) and time.monotonic() > at, number),
        )
        if done.returncode == 0:
            continue  # it had ended
        interrupted += 1
        assert done.returncode == STATUS[number], done.stderr
        assert re.fullmatch(NOTE + LINE, done.stderr), done.stderr
    assert interrupted > 5
    for k in range(5):
        done = program.run(command, tmp_path / f"{k}")
        assert done.returncode == 0, done.stderr
        pd.testing.assert_frame_equal(table(whole), table(tmp_path / f"{k}"))


def table(folder):
    [path] = folder.glob("runs/sweep_*/table.csv")
    return pd.read_csv(path).drop(columns=TIMED)
