"""Run folders in the form that training writes them, without training."""

import json
import math
import random
from itertools import count
from pathlib import Path

import yaml

from seqmem import models, results
from seqmem.cli import report
from seqmem.results.record import RunFolder, digest
from seqmem.training.config import model_arguments

COMMIT = "5fa96dfeba68e8c480614075b2a66ac1df7a60b7"
MODELS = ("legs", "lagt", "lmu", "lstm", "gru", "mgu", "rnn")


def configuration(model="legs", dataset="digits", lr=0.01, seed=0, **settings):
    """A config of as many keys as a real one has; ``settings`` are keys of the data set's section."""
    return {
        "model": {
            "network": "recurrent",
            "cell": model,
            "cell_args": {"hidden_size": 64, "memory_size": 1, "memory_order": 64, "gate": "G"},
            "num_layers": 1,
            "embedding_size": None,
            "output_hiddens": [],
            "dropout": 0.0,
            "preset": None,
        },
        "dataset": {"name": dataset, "split_seed": 0, "num_workers": 0, **settings},
        "train": {
            "optimizer": "adam",
            "lr": lr,
            "wd": 0.0,
            "epochs": 50,
            "batch_size": 32,
            "gradient_clip_val": 1.0,
            "limit_train_batches": 1.0,
            "limit_test_batches": 1.0,
            "precision": "32-true",
            "test_last": False,
        },
        "runner": {"name": "pl", "ntrials": 3, "accelerator": "auto"},
        "seed": seed,
        "smoke_test": False,
        "output_dir": "runs",
    }


def write_run(path, config, test=0.5, metric="accuracy", best="max", code="1a2b3c4d5e6f", epochs=50, **changes):
    """Write a finished trial to ``path``; ``changes`` are keys of its record. Returns its folder."""
    run = RunFolder(path)
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.dump(config, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False))
    (path / "data.json").write_text("{}\n")
    model = models.label(model_arguments(config))
    sign = 1 if best == "max" else -1
    values = [test - sign * 0.4 * math.exp(-epoch / 8) for epoch in range(epochs)]
    rows = "".join(f"{k},{40 * k},{0.4 * k},2900.5,{2 - v!r},{v!r},{2 - v!r},{v!r}\n" for k, v in enumerate(values))
    heading = f"epoch,step,seconds,sequences_per_second,val/loss,val/{metric},train/loss,train/{metric}\n"
    (path / "metrics.csv").write_text(heading + rows)
    record = {
        "status": "finished",
        "group": digest(config),
        "dataset": config["dataset"]["name"],
        "model": model,
        "seed": config["seed"],
        "smoke_test": False,
        "started": "2026-11-22T04:36:58+0000",
        "command": ["train.py", f"model={model}", "runner.ntrials=3"],
        "process": 1234,
        "code": code,
        "commit": COMMIT,
        "versions": {"python": "3.11.7", "torch": "2.14.1", "pytorch-lightning": "2.6.6", "numpy": "2.4.6"},
        "machine": {"processor": "Intel(R) Xeon(R) Processor", "threads": 1, "gpu": None, "system": "Linux"},
        "metric": metric,
        "best": best,
        "irreducible_error": None,
        "result": {f"val/{metric}": values[-1] if values else test, "test/loss": 0.6, f"test/{metric}": test},
        "result_last": {},
        "best_epoch": epochs - 1,
        "epochs": epochs,
        "train_seconds": 7.29,
        "sequences_per_second": 2888.85,
        "peak_memory_mib": 887.2,
        "parameters": 13514,
        "operators": dict.fromkeys(("legs_sequence", "lstm_sequence", "gru_sequence"), "compiled"),
        "seconds": 7.4,
        **changes,
    }
    (path / "record.json").write_text(json.dumps(record, indent=2) + "\n")
    return run


def write_many(folder: Path, records: int, trials: int = 3) -> None:
    """Write trials of ``records / trials`` configs: two data sets of different metrics, seven models, many learning rates."""
    draw = random.Random(0)
    left = records
    for k in count():
        model, dataset = MODELS[k % len(MODELS)], ("digits", "sinusoids")[k // len(MODELS) % 2]
        metric, best = ("accuracy", "max") if dataset == "digits" else ("mse", "min")
        lr = round(0.001 * (1 + k // (2 * len(MODELS))), 4)
        level = draw.uniform(0.5, 0.95)
        for seed in range(trials):
            if not left:
                return
            left -= 1
            config = configuration(model, dataset, lr, seed)
            path = folder / f"{dataset}_{model}_{digest(config)}" / f"seed_{seed}"
            changes = (
                {"status": "failed", "reason": "UserError: val/mse: no finite value in any epoch; try a smaller train.lr"}
                if draw.random() < 0.02
                else {}
            )
            write_run(path, config, level + draw.gauss(0, 0.02), metric, best, **changes)


def write_trials(folder, tests, **config):
    """A folder with a trial for each of ``tests``; returns its path."""
    first = configuration(**config)
    path = folder / f"{first['dataset']['name']}_{first['model']['cell']}_{digest(first)}"
    for seed, test in enumerate(tests):
        write_run(path / f"seed_{seed}", configuration(**config, seed=seed), test, epochs=3)
    return path


def rows_of(folder):
    return results.group_trials(results.find_runs(folder))


def written(folder, *arguments):
    """The files of a folder's report by name."""
    report.main([str(folder), "--out", str(folder / "out"), *map(str, arguments)])
    return {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
