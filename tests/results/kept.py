"""Evaluations with predictions in the form that ``seqmem evaluate`` writes them, for given outputs of a model."""

import json

import torch

from seqmem.data import IGNORE_INDEX, Batch, DataSpec
from seqmem.results.evaluations import checksum
from seqmem.results.reading import read_run
from seqmem.results.record import RunFolder
from seqmem.tasks import task_for
from seqmem.training.evaluation.predictions import Predictions
from tests.results.synthetic import configuration, write_run

DIGITS = DataSpec("digits", 1, 3, "classification", 0, 8)


def keep(trial, spec, outputs, batch, names=None, suffix=".npz", data=None, **changes):
    """Keep the predictions of a finished trial for a batch, and return its metric; ``changes`` are of the evaluation."""
    task = task_for(spec)
    kept, metrics = Predictions(task, names), task.metrics()
    kept.observe(batch, {"outputs": outputs})
    task.update(metrics, outputs, batch)
    number = len(list(trial.path.glob("evaluations/*.json")))
    path = trial.path / f"predictions_{number}{suffix}"
    kept.write(path)
    evaluation = {
        "epoch": trial.read_record()["best_epoch"],
        "changed": {},
        "split": "test",
        "metric": task.metric,
        "result": {f"test/{name}": value.item() for name, value in metrics.compute().items()},
        "predictions": {"file": str(path), "sha256": checksum(path)},
        "data": data or {"name": spec.name, "sha256": {"test": "1"}},
    }
    (trial.path / "evaluations").mkdir(exist_ok=True)
    (trial.path / "evaluations" / f"2026-01-01_{number:02}.json").write_text(json.dumps({**evaluation, **changes}))
    return evaluation["result"][f"test/{task.metric}"]


def finished(folder, metric="accuracy", best="max", model="legs"):
    """A finished trial, as it is read."""
    return read_run(write_run(folder, configuration(model), metric=metric, best=best, epochs=2))


def classified(folder, model, right, seed=0, ignored=0, **arguments):
    """A trial on digits of which ``right`` (n,) says whether each class is predicted; its test accuracy is recorded.

    The last ``ignored`` sequences have no target that counts.
    """
    right = torch.as_tensor(right)
    targets = torch.arange(len(right)) % 3
    outputs = torch.eye(3)[torch.where(right, targets, (targets + 1) % 3)] * 4
    trial = write_run(folder / model / f"seed_{seed}", configuration(model, seed=seed), right.float().mean().item(), epochs=2)
    assert isinstance(trial, RunFolder)
    targets = torch.where(torch.arange(len(right)) < len(right) - ignored, targets, IGNORE_INDEX)
    keep(trial, DIGITS, outputs, Batch(torch.zeros(len(right), 8, 1), targets), **arguments)
    return trial
