"""Trials in the folder of a test, and their comparison."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from seqmem import training
from seqmem.results import RunFolder

_COMPARED = ("result", "result_last", "best_epoch", "epochs", "linear_probe_accuracy")


def run_trials(config: Mapping[str, Any], data: training.Data, folder: Path) -> list[RunFolder]:
    """Run the trials of a config; the experiment's folder lies in ``folder``."""
    return training.run_trials(config, data, training.experiment(config, data, folder))


def saved(folder: RunFolder, name: str) -> dict[str, Any]:
    """A checkpoint of a trial."""
    return torch.load(folder.checkpoints / name, weights_only=True)


def assert_same(first: RunFolder, second: RunFolder) -> None:
    """Compare weights, optimiser and metrics of two trials, without their times."""
    for name in ("best.ckpt", "last.ckpt"):
        a, b = saved(first, name), saved(second, name)
        assert a["state_dict"].keys() == b["state_dict"].keys()
        assert all(torch.equal(a["state_dict"][key], b["state_dict"][key]) for key in a["state_dict"])
        [one], [other] = a["optimizer_states"], b["optimizer_states"]
        for key, state in one["state"].items():
            assert all(torch.equal(torch.as_tensor(v), torch.as_tensor(other["state"][key][k])) for k, v in state.items())
        assert a["lr_schedulers"] == b["lr_schedulers"]
        assert (a["epoch"], a["global_step"]) == (b["epoch"], b["global_step"])
    timed = ["seconds", "sequences_per_second"]
    pd.testing.assert_frame_equal(first.read_metrics().drop(columns=timed), second.read_metrics().drop(columns=timed))
    one, other = first.read_record(), second.read_record()
    assert [one.get(key) for key in _COMPARED] == [other.get(key) for key in _COMPARED]
    assert _content(first.path / "anomalies.csv") == _content(second.path / "anomalies.csv")


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None
