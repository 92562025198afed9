"""Trials of the tables, drawn at random and trained again: ``python -m benchmarks.repeat``.

Rows are drawn, and of each one trial, among those of this kind of processor, since last digits depend on it. The trial is
trained by its command, with the code of this checkout, in a temporary folder. Its numbers are the same if they differ by at
most half a unit of the last digit that the table shows; the program exits with 1 if one differs. The comparisons are added to
``benchmarks/latest/repeated.csv``, which git ignores, and trials that it has are not drawn. ``--keep`` uses
``benchmarks/results/repeated.csv`` and updates the page of results.
"""

import argparse
import os
import random
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from benchmarks.output import add_output, output
from benchmarks.pages import every_page
from benchmarks.pages.results import TRIALS
from benchmarks.pages.trials import Row, Trial
from benchmarks.trial_rows import PRELOADED, of_record, read, write
from seqmem.io.provenance import provenance
from seqmem.results import find_runs

ROOT = Path(__file__).parents[1]
TEST, VALIDATION = ("test", "test_accuracy"), ("validation", "val_accuracy")
"""Names of a column in the files."""

COLUMNS = (
    "file",
    "command",
    "digits",
    "test",
    "test_again",
    "validation",
    "validation_again",
    "commit",
    "commit_again",
    "started",
    "processor",
    "threads",
    "torch",
    "seconds",
)


def main() -> None:
    """Run the command line: train trials again, and say which numbers are those of the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5, help="number of rows (default 5)")
    parser.add_argument("--draw", type=int, default=0, help="seed of the drawing (default 0)")
    parser.add_argument("--longest", type=float, default=600.0, help="seconds of the longest trial (default 600)")
    names = list(dict.fromkeys(of.page for of in TRIALS))
    parser.add_argument("--pages", nargs="+", choices=names, default=names, help="pages whose rows are drawn (default all)")
    add_output(parser, "repeated.csv")
    arguments = parser.parse_args()
    path, different = output(arguments, "repeated.csv"), 0
    done = {found["command"] for found in read(path)}
    for row, trial in drawn(arguments.count, arguments.draw, arguments.longest, done, arguments.pages):
        found = repeated(row, trial)
        write(path, COLUMNS, [*read(path), found])
        agrees = same(found)
        different += not agrees
        values = ", ".join(f"{name} {found[name]}, again {found[f'{name}_again']}" for name in ("test", "validation"))
        print(f"{'same' if agrees else 'DIFFERENT'}: {found['command']}: {values}", flush=True)
    if arguments.keep:
        every_page.update()
    if different:
        sys.exit(f"error: {different} of {arguments.count} trials have other numbers than the table")


def drawn(
    count: int, seed: int, longest: float, done: Collection[str] = (), pages: Collection[str] | None = None
) -> list[tuple[Row, Trial]]:
    """Return different rows with one trial each, of this kind of processor and of at most so many seconds.

    Trials whose commands are in ``done`` are left out, and rows of pages that are not in ``pages``, if it is given.
    """
    processor, generator = provenance()["machine"]["processor"].removesuffix(PRELOADED), random.Random(seed)
    fitting = [
        (row, trials)
        for of in TRIALS
        if pages is None or of.page in pages
        for row in of.rows()
        if (trials := [each for each in row.trials if _fits(each, processor, longest) and of.again(each) not in done])
    ]
    if count > len(fitting):
        sys.exit(
            f"error: --count: got {count}, expected at most {len(fitting)}: rows with a trial on {processor} of {longest:g} s"
        )
    return [(row, generator.choice(trials)) for row, trials in generator.sample(fitting, count)]


def _fits(trial: Trial, processor: str, longest: float) -> bool:
    return trial["processor"].removesuffix(PRELOADED) == processor and float(trial["seconds"]) <= longest


def repeated(row: Row, trial: Trial) -> dict[str, str]:
    """Train a trial again, and return its numbers next to those of the table."""
    command = row.of.again(trial)
    record = _record(command)
    _check_same_machine(trial, record)
    result, metric = record["result"], record["metric"]
    values = {key: str(value) for key, value in of_record(record).items() if key in COLUMNS} | {
        "file": row.of.file,
        "command": command,
        "digits": str(row.of.metric.digits),
        "test": _number(trial, TEST),
        "test_again": str(result[f"test/{metric}"]),
        "validation": _number(trial, VALIDATION),
        "validation_again": str(result[f"val/{metric}"]),
        "commit": trial["commit"],
        "commit_again": record["commit"],
    }
    return {name: values[name] for name in COLUMNS}


def _check_same_machine(trial: Trial, record: Mapping[str, Any]) -> None:
    """End with an error if the repetition had other kernels or another number of threads than the trial."""
    machine = record["machine"]
    before = (trial["processor"], trial.get("threads") or str(machine["threads"]))
    now = (machine["processor"], str(machine["threads"]))
    if before != now:
        names = [f"{processor}, threads: {threads}" for processor, threads in (now, before)]
        sys.exit(f"error: {trial['model']}, seed {trial['seed']}: got a repetition on {names[0]}, expected {names[1]}")


def same(found: Mapping[str, str]) -> bool:
    """Return whether both numbers are those of the table, to half a unit of its last digit."""
    unit = 10.0 ** -int(found["digits"])
    return all(abs(float(found[name]) - float(found[f"{name}_again"])) <= 0.5 * unit for name in ("test", "validation"))


def _number(trial: Trial, names: tuple[str, ...]) -> str:
    return next(trial[name] for name in names if name in trial)


def _record(command: str) -> dict[str, Any]:
    """Train by a command in an empty folder, on the CPU, and return the record; only its own variables choose kernels."""
    chosen = ("LD_PRELOAD", "OMP_", "MKL_", "SEQMEM_REFERENCE", "SEQMEM_INSTRUCTION_SET", "SEQMEM_EXTENSION")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(chosen)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as runs:
        ran = subprocess.run(
            ["sh", "-c", f"{command} runner.accelerator=cpu output_dir={shlex.quote(runs)}"],
            cwd=ROOT,
            env=variables | {"PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if ran.returncode:
            sys.exit(f"{ran.stdout[-3000:]}\nerror: {command}: exit status {ran.returncode}")
        [run] = find_runs(Path(runs))
        return dict(run.folder.read_record())


if __name__ == "__main__":
    main()
