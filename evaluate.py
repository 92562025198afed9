"""Evaluate a finished trial again, on its own data or on others, and write down what it answers.

  python evaluate.py CHECKPOINT [KEY=VALUE ...]

CHECKPOINT is a file that train.py wrote, or the folder of a finished trial for its best one. Loss and metrics are printed
beside those of the training (of the training split: means over the epoch, during which the weights changed), and of classes how
many were told. What was measured, of which weights and data, is kept in a file of TRIAL/evaluations/.

Keys of this command
  split=test          test, validation or train
  predictions=FILE    a new .npz or .csv file: of each sequence its number in the split, length, target and prediction, with the
                      probability of each class or, of a text, of the right symbol. In .npz, answers at every step are padded
                      with zeros after the first "steps" of a row; .csv has a line for each answer.

Any other key changes the trial's config, but for the model: dataset.eval_hz=0.5 or dataset.length=1000 shifts its data,
dataset=NAME reads others of the same shape, train.eval_batch_size=32 reads a text in 32 pieces side by side,
train.limit_test_batches=100 reads less, smoke_test=false reads all after a smoke test.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seqmem.cli import commandline, messages


@dataclass(frozen=True)
class Keys:
    """The keys of this command, as above."""

    split: Literal["test", "validation", "train"] = "test"
    predictions: str | None = None


def main() -> None:
    """Measure what the command line asks for."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(__doc__)
        return
    with messages.one_line_errors():
        checkpoint, config, keys = commandline.of_checkpoint(sys.argv[1:], Keys)

        from seqmem import datasets, models
        from seqmem.io.files import write_json
        from seqmem.io.provenance import provenance
        from seqmem.results.evaluations import by_class, changes, checksum, recorded, side_by_side
        from seqmem.results.record import RunFolder
        from seqmem.training.checkpoints.checkpoints import restore
        from seqmem.training.config import model_arguments
        from seqmem.training.evaluation.evaluation import PREFIXES, evaluate
        from seqmem.training.evaluation.predictions import ClassCounts, Predictions, check_predictions

        path = Path(keys.predictions) if keys.predictions else None
        if path:
            check_predictions(path)
        before = recorded(checkpoint.folder, checkpoint.epoch, PREFIXES[keys.split])
        data = datasets.load(config["dataset"])
        module = restore(checkpoint, config["train"], data.spec)
        label, spec = models.label(model_arguments(config)), data.spec
        file = RunFolder(checkpoint.folder).new_evaluation(f"{keys.split}_{config['dataset']['name']}")
        task = module.task
        counts = ClassCounts(task) if task.tabulates_classes else None
        predictions = Predictions(task) if path else None
        started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        observers = [observer for observer in (counts, predictions) if observer is not None]
        measured = evaluate(module, data, config, keys.split, observers)
        changed = changes(checkpoint.config, config)

        print(f"{label} on {spec.name}, epoch {checkpoint.epoch + 1}, {keys.split} split")
        for key, (old, new) in changed.items():
            print(f"{key}={new}, in training {old}")
        print(side_by_side(measured, before))
        if task.irreducible_error is not None:
            print(f"{task.metric} is irreducible below {task.irreducible_error:.4f}")
        if counts is not None:
            print(by_class(counts.counts))
        if path and predictions is not None:
            predictions.write(path)
            print(f"answers to {len(predictions)} sequences are in {path}")
        evaluation = {
            "checkpoint": str(checkpoint.path),
            "checkpoint_sha256": checksum(checkpoint.path),
            "epoch": checkpoint.epoch,
            "model": label,
            "dataset": spec.name,
            "split": keys.split,
            "metric": task.metric,
            "result": measured,
            "in_training": before,
            "changed": changed,
            "by_class": None if counts is None else counts.counts.tolist(),
            "predictions": {"file": str(path.resolve()), "sha256": checksum(path)} if path else None,
            "started": started,
            "command": sys.argv,
            "config": config,
            "data": data.describe(),
            **provenance(),
        }
        write_json(file, evaluation)
        print(f"the record of this evaluation is {file}")


if __name__ == "__main__":
    main()
