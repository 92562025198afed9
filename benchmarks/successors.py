"""The table of models of equal size, from the records of its trials: ``python -m benchmarks.successors RUNS``.

``make table-successors`` trains them. The finished trials of its experiments below RUNS become rows of
``benchmarks/latest/successors/trials.csv``, which git ignores. ``--keep`` writes to ``benchmarks/results/successors/`` and
updates the pages. Rows of other trials in the file stay, and those of the same task, model and seed are replaced. Trials whose
test has another sampling rate are evaluated at the rate of their training, too.
"""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import other_rates, successor_tasks
from benchmarks.output import add_output, output
from benchmarks.pages import every_page
from benchmarks.trial_rows import Row, finished, may_count, newest, of_record, read, warn_of_unfinished, write
from seqmem.results import RunFolder

COLUMNS = (
    "task",
    "step_size",
    "model",
    "seed",
    "test_accuracy",
    "test_accuracy_last_epoch",
    "test_accuracy_unshifted",
    "val_accuracy",
    "best_epoch",
    "epochs",
    "seconds",
    "sequences_per_second",
    "peak_memory_mib",
    "parameters",
    "commit",
    "started",
    "processor",
    "threads",
    "torch",
)
KEY = ("task", "step_size", "model", "seed")


def main() -> None:
    """Run the command line: collect the trials, and update the pages if the results are kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help="the folder of the trials, for example runs")
    add_output(parser, "successors")
    arguments = parser.parse_args()
    folder = output(arguments, "successors")
    folder.mkdir(exist_ok=True)
    found = rows(finished(arguments.runs))
    warn_of_unfinished(arguments.runs, belongs)
    path = folder / "trials.csv"
    write(path, COLUMNS, merged(read(path), found))
    if arguments.keep:
        every_page.update()
    print(f"{len(found)} trials: {path}")


def rows(trials: Iterable[tuple[RunFolder, Mapping[str, Any]]]) -> list[Row]:
    """Return a row for each trial, given with its config, that is one of the table's."""
    found = []
    for folder, config in trials:
        record = folder.read_record()
        if belongs(record, config):
            other_rates.evaluate(folder, config)
            unshifted = other_rates.unshifted_accuracy(folder, config)
            values = row(record, config) | {"test_accuracy_unshifted": "" if unshifted is None else unshifted}
            found.append({key: str(values[key]) for key in COLUMNS})
    return found


def belongs(record: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Return whether a trial has the config of an experiment of the table, and may count."""
    return may_count(record, config) and successor_tasks.has(config)


def row(record: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the table has of a trial."""
    return of_record(record) | {
        "task": successor_tasks.task(config["dataset"]),
        "step_size": successor_tasks.step_size(config),
        "test_accuracy": record["result"]["test/accuracy"],
        "test_accuracy_last_epoch": (record.get("result_last") or {}).get("test/accuracy", ""),
        "val_accuracy": record["result"]["val/accuracy"],
    }


def merged(kept: Iterable[Row], found: Iterable[Row]) -> list[Row]:
    """Return the rows of a file with new ones, which replace those of the same key, in the order of tasks, models and seeds."""
    by_key = newest(kept, found, lambda each: tuple(each[name] for name in KEY))
    return sorted(by_key.values(), key=lambda each: (each["task"], each["step_size"], each["model"], int(each["seed"])))


if __name__ == "__main__":
    main()
