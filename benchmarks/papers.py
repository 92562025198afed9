"""The tables of the papers, from the records of their trials: ``python -m benchmarks.papers RUNS``.

``make table-hippo-1`` and other targets train them. The finished trials below RUNS become rows of the files that
:mod:`benchmarks.paper_tables` names, below ``benchmarks/latest/``, which git ignores. ``--keep`` writes to
``benchmarks/results/`` and updates the pages. Rows of other trials in the files stay, and those of the same experiment
and seed are replaced.
"""

import argparse
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.entries import Entry
from benchmarks.output import LATEST, RESULTS
from benchmarks.pages import every_page
from benchmarks.paper_tables import TABLES, Table
from benchmarks.trial_rows import Row, environment, finished, may_count, newest, of_record, read, warn_of_unfinished, write
from seqmem.results import RunFolder
from seqmem.results.model_card import shared_command

FIRST = ("experiment", "changes", "model", "seed", "metric", "test", "test_last_epoch", "validation", "best_epoch", "epochs")
LAST = (
    "seconds",
    "sequences_per_second",
    "peak_memory_mib",
    "parameters",
    "command",
    "trained_by",
    "commit",
    "started",
    "processor",
    "threads",
    "torch",
)


def main() -> None:
    """Run the command line: collect the trials, and update the pages if the results are kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help="the folder of the trials, for example runs")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--output", type=Path, default=LATEST, help="folder of the files (default benchmarks/latest)")
    group.add_argument("--keep", action="store_true", help="write benchmarks/results, which belongs to the repository")
    arguments = parser.parse_args()
    trials = finished(arguments.runs)
    warn_of_unfinished(arguments.runs, belongs)
    left = len(trials)
    for table in TABLES:
        path = (RESULTS if arguments.keep else arguments.output) / table.file
        found = rows(table, trials)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, columns(table), merged(table, read(path), found))
        print(f"{len(found)} trials: {path}")
        left -= len(found)
    print(f"{left} other finished trials: with the settings of no row, smoke tests, or repeated without weights")
    if arguments.keep:
        every_page.update()


def belongs(record: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Return whether a trial has the settings of a row, and may count."""
    return may_count(record, config) and any(entry.has(config) for table in TABLES for entry in table.entries)


def columns(table: Table) -> list[str]:
    """Return the columns of a table's file."""
    return [*FIRST, *table.extras, *LAST]


def rows(table: Table, trials: Iterable[tuple[RunFolder, Mapping[str, Any]]]) -> list[Row]:
    """Return a row for each trial, given with its config, that is one of the table's.

    Trials that may not count are left out, and those with other seeds than 0 of a model without weights: all are the same.
    """
    found = []
    for folder, config in trials:
        entry = next((entry for entry in table.entries if entry.has(config)), None)
        record = folder.read_record()
        if entry is None or not may_count(record, config):
            continue
        if record["parameters"] or not record["seed"]:
            values = row(entry, record, table.extras)
            found.append({key: str(values.get(key, "")) for key in columns(table)})
    return found


def row(entry: Entry, record: Mapping[str, Any], extras: Sequence[str] = ()) -> dict[str, Any]:
    """Return what a table has of a trial's record.

    ``command`` is the experiment's in this checkout, and ``trained_by`` what was typed at the trial's commit.
    """
    result, last, metric = record["result"], record.get("result_last") or {}, record["metric"]
    known = of_record(record)
    return {
        **{key: value for key, value in known.items() if value is not None},
        **{key: result[f"test/{key}"] for key in extras if f"test/{key}" in result},
        "experiment": entry.experiment,
        "changes": " ".join(entry.changes),
        "command": environment(known["processor"], str(known["threads"])) + entry.command(record["seed"]),
        "trained_by": shlex.join(shared_command(record.get("command") or [])),
        "test": result[f"test/{metric}"],
        "test_last_epoch": last.get(f"test/{metric}", ""),
        "validation": result[f"val/{metric}"],
    }


def merged(table: Table, kept: Iterable[Row], found: Iterable[Row]) -> list[Row]:
    """Return the rows of a file with new ones, which replace those of the same key, in the order of the table and of seeds."""
    places = {(entry.experiment, " ".join(entry.changes)): place for place, entry in enumerate(table.entries)}
    by_key = newest(kept, found, lambda each: (each["experiment"], each["changes"], int(each["seed"])))
    return [each for _, each in sorted(by_key.items(), key=lambda item: (places[item[0][:2]], item[0][2]))]


if __name__ == "__main__":
    main()
