"""Time and memory of training each model of the successors' table: ``python -m benchmarks.epoch_times`` (idle cores).

Each model trains in a process of its own, as ``make table-successors`` trains it, with one thread: 40 updates, in which
``train.compile`` also compiles, and 40 whose time counts. The rates of those trials depend on what else the machine did
meanwhile, these do not. ``--only gru s4d`` measures some models again and leaves the rows of the others. ``--keep`` writes to
``benchmarks/results/successors/`` and updates the pages.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import trial_rows
from benchmarks.output import add_output, output
from benchmarks.pages import every_page
from benchmarks.run import environment
from seqmem.cli import choices

ROOT = Path(__file__).parents[1]
FILE = "successors/epochs.csv"
TRAINED = 54_000
"""Sequences of an epoch."""
PREFIX = "successors/pmnist_"
UPDATES = 40
BRIEF = (
    "train.epochs=2",
    "train.limit_val_batches=1",
    "train.limit_test_batches=1",
    "runner.ntrials=1",
    "runner.accelerator=cpu",
)


def main() -> None:
    """Run the command line: measure each model, and update the pages if the results are kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_output(parser, FILE)
    models = [name.removeprefix(PREFIX) for name in choices.names("experiment") if name.startswith(PREFIX)]
    parser.add_argument("--only", nargs="+", choices=models, default=models, metavar="MODEL", help=", ".join(models))
    arguments = parser.parse_args()
    path = output(arguments, FILE)
    for model in arguments.only:
        row = measure(model)
        print(*row.values(), sep=", ", flush=True)
        save(row, path)  # the next one may fail
    if arguments.keep:
        every_page.update()
    print(f"all rows: {path}")


def measure(model: str) -> dict[str, object]:
    """Train for some updates; return the model with its times and memory."""
    record = brief(f"{PREFIX}{model}", f"train.limit_train_batches={UPDATES}")
    rate = record["sequences_per_second"]
    return {
        "model": record["model"],
        "sequences_per_second": rate,
        "minutes_an_epoch": round(TRAINED / rate / 60, 2),
        "peak_memory_mib": record["peak_memory_mib"],
        "parameters": record["parameters"],
        "threads": record["machine"]["threads"],
    }


def brief(experiment: str, *settings: str, **variables: str) -> dict[str, Any]:
    """Train an experiment for two epochs, and return the trial's record with the sequences per second of the second.

    Args:
        experiment: its name.
        settings: further overrides.
        variables: further environment variables.
    """
    with tempfile.TemporaryDirectory() as folder:
        train(f"experiment={experiment}", *BRIEF, *settings, f"output_dir={folder}", **variables)
        [path] = Path(folder).rglob("record.json")
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        [_, second] = trial_rows.read(path.with_name("metrics.csv"))
    return record | {"sequences_per_second": float(second["sequences_per_second"])}


def train(*settings: str, **variables: str) -> None:
    """Run train.py with one thread, and with further environment variables."""
    command = [sys.executable, "train.py", *settings]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, env=one_thread)


def save(row: Mapping[str, object], path: Path) -> None:
    """Write a row with the environment of the measurement, in place of the earlier row of its model."""
    lines = {line["model"]: line for line in [*trial_rows.read(path), {**environment(), **row}]}
    trial_rows.write(path, list(lines[row["model"]]), sorted(lines.values(), key=lambda line: str(line["model"])))


if __name__ == "__main__":
    main()
