"""The tables of memory, from their finished trials: ``python -m benchmarks.memory RUNS``.

``make table-memory`` and ``make table-uea`` train them. Those below RUNS are evaluated at the lengths and distributions of
:mod:`benchmarks.memory_tasks`, unless that was done before, and become rows of ``benchmarks/latest/memory/TASK.csv``, which
git ignores. ``--keep`` writes to ``benchmarks/results/memory/`` and updates the
pages. Rows of other trials in the files stay, and those of the same model and seed are replaced.
"""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.memory_tasks import MEMORY, UEA, Condition, Task, whole_key
from benchmarks.output import add_output, output
from benchmarks.pages import every_page
from benchmarks.trial_rows import Row, finished, may_count, newest, of_record, read, warn_of_unfinished, write
from seqmem.cli import by_length, evaluate, finished_trial
from seqmem.results import RunFolder
from seqmem.results.by_length import AtLength

FIRST = ("model", "seed", "test_accuracy", "val_accuracy")
LAST = ("best_epoch", "epochs", "seconds", "parameters", "commit", "started", "processor", "threads", "torch")


def main() -> None:
    """Run the command line: evaluate and collect the trials, and update the pages if the results are kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help="the folder of the trials, for example runs")
    add_output(parser, "memory")
    arguments = parser.parse_args()
    folder = output(arguments, "memory")
    folder.mkdir(exist_ok=True)
    trials = finished(arguments.runs)
    warn_of_unfinished(arguments.runs, belongs)
    for task in (*MEMORY, *UEA):
        found = rows(task, trials)
        path = folder / f"{task.name}.csv"
        write(path, columns(task), merged(read(path), found))
        print(f"{len(found)} trials: {path}")
    if arguments.keep:
        every_page.update()


def belongs(record: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Return whether a trial is one of a task's, and may count."""
    return may_count(record, config) and any(task.has(config) for task in (*MEMORY, *UEA))


def columns(task: Task) -> list[str]:
    """Return the columns of a task's file."""
    keys = [condition.key for condition in task.conditions]
    return [*FIRST, *keys, *(whole_key(key) for key in ("test", *keys) if task.whole), *LAST]


def rows(task: Task, trials: Iterable[tuple[RunFolder, Mapping[str, Any]]]) -> list[Row]:
    """Return a row for each trial, given with its config, that is one of the task's and may count."""
    found = []
    for folder, config in trials:
        record = folder.read_record()
        if task.has(config) and may_count(record, config):
            row = in_table(record)
            for each in task.conditions:
                result = evaluation(folder.path, each).result
                row |= {each.key: result["accuracy"], whole_key(each.key): result.get("sequence_accuracy", "")}
            found.append({key: str(row[key]) for key in columns(task)})
    return found


def in_table(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the table has of a trial's record."""
    result = record["result"]
    return of_record(record) | {
        "test_accuracy": result["test/accuracy"],
        "val_accuracy": result["val/accuracy"],
        whole_key("test"): result.get("test/sequence_accuracy", ""),
    }


def evaluation(trial: Path, condition: Condition) -> AtLength:
    """Return the evaluation of a trial under a condition, which is made if its folder does not have it."""
    checkpoint, config, keys = finished_trial.read([str(trial), *condition.command()], evaluate.Keys)
    [found] = by_length.run(checkpoint, config, keys.lengths or [])
    return found


def merged(kept: Iterable[Row], found: Iterable[Row]) -> list[Row]:
    """Return the rows of a file with new ones, which replace those of the same model and seed, in the order of both."""
    by_key = newest(kept, found, lambda row: (row["model"], int(row["seed"])))
    return [row for _, row in sorted(by_key.items())]


if __name__ == "__main__":
    main()
