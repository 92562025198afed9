"""The table of models of equal size, from the records of its trials: ``python -m benchmarks.successors RUNS``.

``make table-successors`` trains them. The finished trials with the preset ``params_100k`` below RUNS become rows of
``benchmarks/latest/successors/trials.csv``, which git ignores. ``--keep`` writes to ``benchmarks/results/successors/`` and
updates the pages. Rows of other trials in the file stay, and those of the same task, model and seed are replaced. Trials whose
test has another sampling rate are evaluated at the rate of their training, too.
"""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import other_rates
from benchmarks.output import add_output, output
from benchmarks.pages import every_page
from benchmarks.trial_rows import Row, finished, of_record, read, warn_of_unfinished, write
from seqmem import sequence
from seqmem.cli import choices
from seqmem.results import RunFolder

HERTZ = 200
"""Sampling rate of CharacterTrajectories."""

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

TASKS = {
    "pmnist": "permuted MNIST",
    "ct_100to200": "CharacterTrajectories, 100 Hz to 200 Hz",
    "ct_200to100": "CharacterTrajectories, 200 Hz to 100 Hz",
}
"""Tasks by the beginnings of their experiments' names."""


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


def waiting(trials: Iterable[Mapping[str, str]]) -> list[str]:
    """Return the names of the table's experiments that none of its rows belongs to."""
    found = {(trial["task"], trial["model"]) for trial in trials}
    begins = {f"successors/{begin}_": task for begin, task in TASKS.items()}
    pairs = [(begin, name) for begin in begins for name in choices.names("experiment") if name.startswith(begin)]
    return [name for begin, name in pairs if (begins[begin], name.removeprefix(begin)) not in found]


def experiment(trial: Mapping[str, str]) -> str:
    """Return the name of the experiment of a row."""
    [begin] = [begin for begin, task in TASKS.items() if task == trial["task"]]
    return f"successors/{begin}_{trial['model']}"


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
    """Return whether a trial has the preset and a data set of the table, and is not a smoke test."""
    is_smoke_test = record.get("smoke_test")
    return config["model"].get("preset") == "params_100k" and not is_smoke_test and bool(task(config["dataset"]))


def row(record: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the table has of a trial."""
    return of_record(record) | {
        "task": task(config["dataset"]),
        "step_size": step_size(config),
        "test_accuracy": record["result"]["test/accuracy"],
        "test_accuracy_last_epoch": (record.get("result_last") or {}).get("test/accuracy", ""),
        "val_accuracy": record["result"]["val/accuracy"],
    }


def task(dataset: Mapping[str, Any]) -> str:
    """Return the task of a data set's settings; empty if it is not one of the table."""
    if dataset["name"] == "mnist" and dataset["permute"]:
        return "permuted MNIST"
    if dataset["name"] == "ct" and not dataset["timestamp"]:
        rates = [f"{dataset[key] * HERTZ:g} Hz" for key in ("train_hz", "eval_hz")]
        return f"CharacterTrajectories, {' to '.join(rates)}"
    return ""


def step_size(config: Mapping[str, Any]) -> str:
    """Return whether the model's step size follows the sampling rate of the test, "rescaled", or is "as trained"."""
    model = config["model"]
    rescales = model.get("rescale", False) and sequence.get(model["mixer"]).rescales
    return "rescaled" if other_rates.is_shifted(config) and rescales else "as trained"


def merged(kept: Iterable[Row], found: Iterable[Row]) -> list[Row]:
    """Return the rows of a file with new ones, which replace those of the same key, in the order of tasks, models and seeds."""
    by_key = {tuple(each[name] for name in KEY): each for each in (*kept, *found)}
    return sorted(by_key.values(), key=lambda each: (each["task"], each["step_size"], each["model"], int(each["seed"])))


if __name__ == "__main__":
    main()
