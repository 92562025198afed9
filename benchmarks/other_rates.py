"""Accuracy of a trained model whose test has another sampling rate, at the rate of its training."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqmem.results import RunFolder

ROOT = Path(__file__).parents[1]


def is_shifted(config: Mapping[str, Any]) -> bool:
    """Return whether the test has another sampling rate than the training."""
    return bool(config["dataset"].get("train_hz") != config["dataset"].get("eval_hz"))


def settings(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the changed setting of each evaluation of a trial, by column: none without a shift."""
    return {"test_accuracy_unshifted": f"dataset.eval_hz={config['dataset']['train_hz']}"} if is_shifted(config) else {}


def evaluate(folder: RunFolder, config: Mapping[str, Any]) -> None:
    """Make the evaluations of a trial that its folder does not have."""
    known = accuracies(folder, config)
    for column, setting in settings(config).items():
        if column not in known:
            command = [sys.executable, "evaluate.py", str(folder.path.resolve()), setting]
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def accuracies(folder: RunFolder, config: Mapping[str, Any]) -> dict[str, float]:
    """Return the test accuracy of each evaluation that a trial's folder has of its best weights, by column."""
    best, found = folder.read_record()["best_epoch"], {}
    for path in sorted((folder.path / "evaluations").glob("*.json")):
        evaluation = json.loads(path.read_text(encoding="utf-8"))
        if evaluation.get("split") != "test" or evaluation.get("epoch") != best:
            continue
        changed = [f"{name}={json.dumps(new)}" for name, (_, new) in evaluation["changed"].items()]
        for column, setting in settings(config).items():
            if changed == [setting]:
                found[column] = evaluation["result"]["test/accuracy"]
    return found
