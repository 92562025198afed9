"""Weights & Biases, offline: one run a trial, closed before the next one begins."""

import json
import struct

import pytest

from tests import program
from tests.engines.commands import TINY, found, require, run

require("wandb", "wandb")
pytestmark = pytest.mark.cluster


def records(log):
    """The messages of an offline run: a log of LevelDB's format, blocks of 32 KiB with a header of 7 bytes on each part."""
    from wandb.proto import wandb_internal_pb2

    content, at, message = log.read_bytes(), 7, b""
    while at + 7 <= len(content):
        left = 2**15 - at % 2**15
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", content[at : at + 7])
        message += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(message)
            yield record
            message = b""


def test_each_trial_of_a_sweep_is_a_run_of_its_own(sequential, tmp_path):
    trackers = ("runner.wandb=offline", "runner.wandb_project=mine", "runner.tensorboard=true")
    done = run("-m", *TINY, "model=lstm,rnn", "runner.ntrials=2", *trackers, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert found(tmp_path / "runs") == sequential
    for trial, (_, result, metrics) in sequential.items():
        folder = tmp_path / "runs" / trial
        assert list(folder.glob("tensorboard/events.*"))
        [log] = folder.glob("wandb/offline-run-*/run-*.wandb")
        noted = list(records(log))
        rows = [
            {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            for record in noted
            if record.WhichOneof("record_type") == "history"
        ]
        logged = [row["val/accuracy"] for row in rows if "val/accuracy" in row]
        assert logged == pytest.approx(list(metrics["val/accuracy"].values()), rel=1e-12)
        assert [row["test/accuracy"] for row in rows if "test/accuracy" in row] == [result["test/accuracy"]]
        assert {record.run.project for record in noted if record.WhichOneof("record_type") == "run"} == {"mine"}
        assert [record.exit.exit_code for record in noted if record.WhichOneof("record_type") == "exit"] == [0]


def test_without_an_account_one_line_says_what_to_do(tmp_path):
    nobody = {"WANDB_API_KEY": "", "HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")}
    done = program.run(["train.py", *TINY, "model=rnn", "runner.wandb=online"], tmp_path, nobody)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("error: runner.wandb: No API key")
    assert line.endswith("runner.wandb=offline needs no account")
