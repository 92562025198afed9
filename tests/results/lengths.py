"""Trials that were evaluated at several lengths, without training."""

import hashlib
import json

from tests.results.synthetic import configuration, write_run

COPYING = {"dataset": "copying", "length": 100, "min_length": 50}


def trial(folder, model="gru", seed=0, weights=b"weights", **changes):
    """A finished trial with a checkpoint; returns its path."""
    path = folder / f"{model}_{changes.get('lr', '')}" / f"seed_{seed}"
    run = write_run(path, configuration(model, seed=seed, **COPYING, **changes), 0.9 + 0.01 * seed, epochs=2)
    run.checkpoints.mkdir()
    (run.checkpoints / "best.ckpt").write_bytes(weights)
    return path


def evaluation(path, length, accuracy, number=0, weights=b"weights", sequences=20, **changes):
    """Write the file of an evaluation at one length."""
    record = {
        "checkpoint_sha256": hashlib.sha256(weights).hexdigest(),
        "epoch": 1,
        "changed": {"dataset.length": [100, length], "dataset.test_samples": [500, 20]},
        "metric": "accuracy",
        "result": {"test/loss": 0.5, "test/accuracy": accuracy},
        "by_length": {"length": length, "steps": length + 6, "sequences": sequences, "keys": ["dataset.length"]},
        **changes,
    }
    folder = path / "evaluations"
    folder.mkdir(exist_ok=True)
    (folder / f"2026-01-0{number + 1}_test_copying_length_{length}_abc.json").write_text(json.dumps(record))


def evaluated(folder):
    """Three trials of one model at three lengths, one of which one trial lacks, and one trial of another model."""
    values = {50: [0.9, 0.8, 1.0], 200: [0.5, 0.6], 4000: [0.1, 0.1, 0.1]}
    for seed in range(3):
        path = trial(folder, seed=seed)
        for length, each in values.items():
            if seed < len(each):
                evaluation(path, length, each[seed])
    evaluation(trial(folder, "lstm"), 200, 0.25)
    trial(folder, "rnn")
    return values
