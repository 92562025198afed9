"""Time and memory of training each model of the successors' table: ``python -m benchmarks.epoch_times`` (idle cores).

Each model trains for 40 updates in a process of its own, as ``make table-successors`` trains it, with one thread. The rates of
those trials depend on what else the machine did meanwhile, these do not. ``--keep`` writes to
``benchmarks/results/successors/`` and updates the pages.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks.output import add_output, output
from benchmarks.pages import every_page
from benchmarks.run import environment
from seqmem.cli import choices

ROOT = Path(__file__).parents[1]
FILE = "successors/epochs.csv"
TRAINED = 54_000
"""Sequences of an epoch."""
UPDATES = 40
SETTINGS = (
    "train.epochs=1",
    f"train.limit_train_batches={UPDATES}",
    "train.limit_val_batches=1",
    "train.limit_test_batches=1",
    "runner.ntrials=1",
    "runner.accelerator=cpu",
)


def main() -> None:
    """Run the command line: measure each model, and update the pages if the results are kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_output(parser, FILE)
    arguments = parser.parse_args()
    path = output(arguments, FILE)
    rows: list[dict[str, object]] = []
    for experiment in experiments():
        rows.append(measure(experiment))
        print(*rows[-1].values(), sep=", ", flush=True)
        save(rows, path)  # the next one may fail
    if arguments.keep:
        every_page.update()
    print(f"all rows: {path}")


def experiments() -> Iterable[str]:
    """Return the names of the experiments on permuted MNIST."""
    return [name for name in choices.names("experiment") if name.startswith("successors/pmnist_")]


def measure(experiment: str) -> dict[str, object]:
    """Train for some updates; return the model with its times and memory."""
    with tempfile.TemporaryDirectory() as folder:
        train(f"experiment={experiment}", *SETTINGS, f"output_dir={folder}")
        [path] = Path(folder).rglob("record.json")
        record = json.loads(path.read_text(encoding="utf-8"))
    rate = record["sequences_per_second"]
    return {
        "model": record["model"],
        "sequences_per_second": rate,
        "minutes_an_epoch": round(TRAINED / rate / 60, 2),
        "peak_memory_mib": record["peak_memory_mib"],
        "parameters": record["parameters"],
        "threads": record["machine"]["threads"],
    }


def train(*settings: str) -> None:
    """Run train.py with one thread."""
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "train.py", *settings], cwd=ROOT, check=True, stdout=subprocess.DEVNULL, env=one_thread)


def save(rows: Iterable[Mapping[str, object]], path: Path) -> None:
    """Write the rows with the environment of the measurement."""
    lines = [{**environment(), **row} for row in rows]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, lines[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


if __name__ == "__main__":
    main()
