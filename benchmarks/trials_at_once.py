"""Trials an hour, one after the other against together: ``python -m benchmarks.trials_at_once`` (five minutes, idle cores).

Each side is one command of train.py, from its start to its table: one trial after the other with all threads, the same with
one thread, and as many at a time as ``runner.workers=auto`` chooses. Together, the results must be those of one thread to the
last digit; on a GPU, those of one after the other up to rounding. ``--keep`` writes to ``benchmarks/results/`` and updates the
README.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import trial_rows
from benchmarks.pages import every_page, measured
from benchmarks.run import add_output, environment, output

ROOT = Path(__file__).parents[1]
TOLERANCE = 1e-3  # of the losses on a GPU


@dataclass(frozen=True)
class Case:
    """Trials of one config, or of a sweep.

    Attributes:
        title: in tables.
        overrides: the command line.
        trials: their number.
    """

    title: str
    overrides: tuple[str, ...]
    trials: int


_FEW = ("train.epochs=1", "train.limit_train_batches=60", "train.limit_val_batches=10", "train.limit_test_batches=10")
CASES = [
    Case(
        "permuted MNIST, LegS 64, 6 seeds",
        ("dataset=mnist", "dataset.permute=true", "model=legs", "model.cell_args.hidden_size=64", *_FEW, "runner.ntrials=6"),
        6,
    ),
    Case(
        "digits, sweep of LegS, LSTM and GRU, 2 seeds each",
        (
            "-m",
            "dataset=digits",
            "model=legs,lstm,gru",
            "model.cell_args.hidden_size=64",
            "train.epochs=15",
            "runner.ntrials=2",
        ),
        6,
    ),
]
ALONE, ONE_THREAD, TOGETHER = measured.TRIALS


def main() -> None:
    """Run the command line: measure the cases, write the rows, and update the pages if they are kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="run the cases whose title contains this text")
    add_output(parser, "trials_at_once.csv")
    arguments = parser.parse_args()
    path = output(arguments, "trials_at_once.csv")
    rows: list[dict[str, object]] = []
    for case in CASES:
        if arguments.only in case.title:
            rows += measure(case)
            save(rows, path)  # the next case may fail
    if not rows:
        parser.error(f"--only: got {arguments.only!r}, expected part of a title: {'; '.join(case.title for case in CASES)}")
    if arguments.keep:
        every_page.update()
    print(f"all rows: {path}")


def measure(case: Case) -> list[dict[str, object]]:
    """Run the sides of a case; one row each.

    Raises:
        SystemExit: a command failed, or the results of two sides differ.
    """
    gpu = torch.cuda.is_available()
    sides = {
        ALONE: (("runner.workers=1",), {}),
        **({} if gpu else {ONE_THREAD: (("runner.workers=1",), {"OMP_NUM_THREADS": "1"})}),
        TOGETHER: (("runner.workers=auto",), {}),
    }
    rows, results = [], {}
    for side, (overrides, variables) in sides.items():
        with tempfile.TemporaryDirectory() as folder:
            seconds, processor = run((*case.overrides, *overrides, f"output_dir={folder}"), variables)
            records = [json.loads(path.read_text()) for path in sorted(Path(folder).rglob("record.json"))]
        results[side] = [record["result"] for record in records]
        found = {
            "case": case.title,
            "side": side,
            "trials": case.trials,
            "at_a_time": max(record["machine"].get("workers", 1) for record in records),
            "seconds": round(seconds, 2),
            "processor_seconds": round(processor, 2),
            "trials_per_hour": round(3600 * case.trials / seconds, 1),
        }
        print(*found.values(), sep=", ", flush=True)
        rows.append(found)
    compare(results[ALONE if gpu else ONE_THREAD], results[TOGETHER], TOLERANCE if gpu else 0.0)
    return rows


def run(overrides: Sequence[str], variables: Mapping[str, str]) -> tuple[float, float]:
    """Run train.py; return the wall time and the processor time of the command and its workers in seconds."""
    usual = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "train.py", *overrides]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, env={**usual, **variables})
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(alone: Sequence[Mapping[str, float]], together: Sequence[Mapping[str, float]], tolerance: float) -> None:
    """Check that the results of two sides are the same up to a relative tolerance of the losses.

    Raises:
        SystemExit: they are not.
    """
    for one, other in zip(alone, together, strict=True):
        for name, value in one.items():
            if (tolerance == 0 or name.endswith("/loss")) and not math.isclose(value, other[name], rel_tol=tolerance):
                sys.exit(f"error: {name} is {value} one after the other and {other[name]} together")


def save(rows: Sequence[Mapping[str, object]], path: Path) -> None:
    """Write the rows with the environment of the measurement; those of other cases stay."""
    where = environment() | {"load": round(os.getloadavg()[0], 2)}
    if torch.cuda.is_available():
        where["processor"] = torch.cuda.get_device_name()
    own = {row["case"] for row in rows}
    kept = [row for row in trial_rows.read(path) if row["case"] in {case.title for case in CASES} - own]
    places = {case.title: place for place, case in enumerate(CASES)}
    found = [*kept, *({**row, **where} for row in rows)]
    trial_rows.write(path, [*rows[0], *where], sorted(found, key=lambda row: places.get(str(row["case"]), 0)))


if __name__ == "__main__":
    main()
