"""Accuracy of a trained model whose test has another sampling rate, without the shift and without its compensation."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqmem import sequence
from seqmem.results import RunFolder

ROOT = Path(__file__).parents[1]


def is_shifted(config: Mapping[str, Any]) -> bool:
    """Return whether the test has another sampling rate than the training."""
    return bool(config["dataset"].get("train_hz") != config["dataset"].get("eval_hz"))


def rescales(config: Mapping[str, Any]) -> bool:
    """Return whether the step size of the model follows the sampling rate."""
    model = config["model"]
    return bool(model.get("rescale", False) and sequence.get(model["mixer"]).rescales)


def settings(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the changed setting of each evaluation of a trial, by column: none without a shift."""
    if not is_shifted(config):
        return {}
    found = {"test_accuracy_unshifted": f"dataset.eval_hz={config['dataset']['train_hz']}"}
    return found | {"test_accuracy_fixed_step": "model.rescale=false"} if rescales(config) else found


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
