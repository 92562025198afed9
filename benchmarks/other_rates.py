"""Accuracy of a trained model whose test has another sampling rate, at the rate of its training."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqmem.results import RunFolder
from seqmem.results.evaluations import is_of_weights, weights_of_result

ROOT = Path(__file__).parents[1]


def is_shifted(config: Mapping[str, Any]) -> bool:
    """Return whether the test has another sampling rate than the training."""
    return bool(config["dataset"].get("train_hz") != config["dataset"].get("eval_hz"))


def evaluate(folder: RunFolder, config: Mapping[str, Any]) -> None:
    """Evaluate a trial without the shift, unless its folder has that or the trial has no shift."""
    if is_shifted(config) and unshifted_accuracy(folder, config) is None:
        command = [sys.executable, "evaluate.py", str(folder.path.resolve()), _setting(config)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def unshifted_accuracy(folder: RunFolder, config: Mapping[str, Any]) -> float | None:
    """Return the test accuracy of a trial's best weights without the shift; None if it has no shift or no such evaluation."""
    if not is_shifted(config):
        return None
    best, weights = folder.read_record()["best_epoch"], weights_of_result(folder)
    for path in sorted((folder.path / "evaluations").glob("*.json"), reverse=True):
        evaluation = json.loads(path.read_text(encoding="utf-8"))
        changed = [f"{name}={json.dumps(new)}" for name, (_, new) in evaluation["changed"].items()]
        is_asked = (evaluation.get("split"), changed) == ("test", [_setting(config)])
        if is_asked and is_of_weights(evaluation, weights, best):
            return float(evaluation["result"]["test/accuracy"])
    return None


def _setting(config: Mapping[str, Any]) -> str:
    return f"dataset.eval_hz={config['dataset']['train_hz']}"
