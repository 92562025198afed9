"""Weights & Biases, offline: one run a trial, closed before the next one begins."""

import pytest

from tests.engines.commands import TINY, found, require, run

require("wandb", "wandb")
pytestmark = pytest.mark.cluster


def test_each_trial_of_a_sweep_is_a_run_of_its_own(sequential, tmp_path):
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    trackers = ("runner.wandb=offline", "runner.wandb_project=mine", "runner.tensorboard=true")
    done = run("-m", *TINY, "model=lstm,rnn", "runner.ntrials=2", *trackers, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert found(tmp_path / "runs") == sequential
    for trial in sequential:
        folder = tmp_path / "runs" / trial
        [log] = folder.glob("wandb/offline-run-*/run-*.wandb")
        assert len(list(folder.glob("tensorboard/events.*"))) == 1
        store, epochs, ends, projects = DataStore(), 0, [], set()
        store.open_for_scan(str(log))
        while (data := store.scan_data()) is not None:
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "history":
                keys = {item.key or "/".join(item.nested_key) for item in record.history.item}
                epochs += "val/accuracy" in keys
            elif kind == "exit":
                ends.append(record.exit.exit_code)
            elif kind == "run":
                projects.add(record.run.project)
        assert epochs == 2
        assert ends == [0]
        assert projects == {"mine"}
