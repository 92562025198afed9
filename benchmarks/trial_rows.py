"""Rows of CSV files about finished trials, as the collectors of the tables write them."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from seqmem.results import RunFolder, find_runs

Row = dict[str, str]


def finished(runs: Path) -> list[tuple[RunFolder, dict[str, Any]]]:
    """Return the folder and the config of each finished trial below a folder."""
    folders = [run.folder for run in find_runs(runs) if run.finished]
    return [(folder, yaml.safe_load((folder.path / "config.yaml").read_text(encoding="utf-8"))) for folder in folders]


def of_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a record by the names of columns: its keys, the best epoch counted from 1, and the machine's."""
    return {
        **record,
        "best_epoch": record["best_epoch"] + 1,
        "processor": record["machine"]["processor"],
        "threads": record["machine"].get("threads", ""),
        "torch": record["versions"]["torch"],
    }


def read(path: Path) -> list[Row]:
    """Return the rows of a file, none if it does not exist."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path: Path, names: Sequence[str], found: Iterable[Mapping[str, object]]) -> None:
    """Write rows to a file."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
